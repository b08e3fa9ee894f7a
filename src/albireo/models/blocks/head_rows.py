"""Which rows of which tensors the linears of a layer are made of, where they are no tensors by themselves.

Called by layers.py. Rows of q, k and v, or of gate and up, may lie in one tensor. And where a part of each head is
rotated, the rows of q and k are taken in the order in which rotation pairs channels (i, i + D/2): first channels and
last channels of a head each get half of those that are not rotated. Where the two of a pair are neighbours in the
checkpoint, every row is a range by itself. Scores are sums over channels in either order. Weights of norms of q and k
are taken in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from albireo.graph.node import RowSegment
from albireo.models.config import ModelConfig
from albireo.models.settings.block_settings import QUARTERS


@dataclass(frozen=True, slots=True)
class RowsOf:
    """Rows of a module's weight and bias.

    Fields: module: its name. ranges: first and end, in order. zeros: so many rows of zeros are behind each of them.
    """

    module: str
    ranges: tuple[tuple[int, int], ...]
    zeros: int = 0

    def segments(self, kind: str) -> tuple[RowSegment, ...]:
        """Args: kind: weight or bias."""
        behind = (RowSegment(None, 0, self.zeros),) if self.zeros else ()
        each = ((RowSegment(f"{self.module}.{kind}", start, stop), *behind) for start, stop in self.ranges)
        return tuple(segment for segments in each for segment in segments)


@dataclass(frozen=True, slots=True)
class RowsOfSeveral:
    """Rows of several modules, one below the other."""

    parts: tuple[RowsOf, ...]

    def segments(self, kind: str) -> tuple[RowSegment, ...]:
        """See RowsOf."""
        return tuple(segment for part in self.parts for segment in part.segments(kind))


def rows_of_heads(c: ModelConfig, heads: Mapping[str, int], part: str, module: str, joined: str | None) -> RowsOf:
    """Of one of q, k, v. Args: heads: of each, in their order in joined, the module of all where there is one."""
    if part == "v" and c.blocks.value_dim:
        width = c.blocks.value_dim
        return RowsOf(module, tuple((i * width, (i + 1) * width) for i in range(heads[part])), c.head_dim - width)
    starts = _starts(c, heads, part, joined is not None)
    if part == "q" and c.blocks.has_output_gate:
        starts = [2 * start for start in starts]
    return RowsOf(joined or module, _runs(starts, c.head_dim) if part == "v" else _rotary_rows(c, starts))


def rows_of_gate(c: ModelConfig, module: str) -> RowsOf:
    """Of what attention's output is gated by; they lie behind each head's query."""
    return RowsOf(module, _runs([(2 * i + 1) * c.head_dim for i in range(c.num_heads)], c.head_dim))


def rows_of_head_norm(c: ModelConfig, module: str, heads: int) -> RowsOf:
    """Of the weight of a norm of so many heads of q or k at once."""
    return RowsOf(module, _rotary_rows(c, [i * c.head_dim for i in range(heads)]))


def rows_of_norms(c: ModelConfig, modules: list[str]) -> RowsOfSeveral:
    """Of the weights of norms of heads, each in a module of its own."""
    return RowsOfSeveral(tuple(RowsOf(module, _rotary_rows(c, [0])) for module in modules))


def _rotary_rows(c: ModelConfig, starts: list[int]) -> tuple[tuple[int, int], ...]:
    """Of heads whose rows begin at starts, in the order in which they are rotated."""
    if c.rotary_dim == c.head_dim and not c.has_pairs_side_by_side:
        return _runs(starts, c.head_dim)
    return tuple(piece for start in starts for piece in _paired(c, start))


def _starts(c: ModelConfig, heads: Mapping[str, int], part: str, is_joined: bool) -> list[int]:
    """The first row of each head."""
    names, first = list(heads), 0
    if is_joined and c.blocks.joined == "by_group":
        queries = heads["q"] // heads["k"]
        place = {"q": 0, "k": queries, "v": queries + 1}[part]
        each = queries if part == "q" else 1
        return [(i // each * (queries + 2) + place + i % each) * c.head_dim for i in range(heads[part])]
    if is_joined and c.blocks.joined == "keys_values":  # of each head its key and its value, queries by themselves
        return [(i if part == "q" else 2 * i + (part == "v")) * c.head_dim for i in range(heads[part])]
    if is_joined and c.blocks.joined == "by_quarter":
        quarter, place = heads[part] // QUARTERS, {"q": 0, "v": 1, "k": 2}[part]
        return [((i // quarter * 3 + place) * quarter + i % quarter) * c.head_dim for i in range(heads[part])]
    if is_joined:
        first = sum(heads[name] for name in names[: names.index(part)])
    return [(first + i) * c.head_dim for i in range(heads[part])]


def _runs(starts: list[int], length: int) -> tuple[tuple[int, int], ...]:
    """Rows of heads; those that follow each other are one range."""
    runs: list[tuple[int, int]] = []
    for start in starts:
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], start + length)
        else:
            runs.append((start, start + length))
    return tuple(runs)


def paired_rows(start: int, rotary: int, width: int) -> Iterator[tuple[int, int]]:
    """The rows of a head of width channels that begin at start, of which the first `rotary` are rotated, in pairs (i,
    i + D/2): first and last channels each get half of those that are not, which come last."""
    half, still = rotary // 2, (width - rotary) // 2
    for side in range(2):
        yield start + side * half, start + (side + 1) * half
        if still:
            yield start + rotary + side * still, start + rotary + (side + 1) * still


def _paired(c: ModelConfig, start: int) -> Iterator[tuple[int, int]]:
    """The rows of a head that begin at start, in pairs (i, i + D/2)."""
    half, still = c.rotary_dim // 2, (c.head_dim - c.rotary_dim) // 2
    end = start + c.rotary_dim
    for side in range(2):
        if c.has_pairs_side_by_side:
            yield from ((row, row + 1) for row in range(start + side, end, 2))
        else:
            yield start + side * half, start + (side + 1) * half
        if still:
            yield end + side * still, end + (side + 1) * still
