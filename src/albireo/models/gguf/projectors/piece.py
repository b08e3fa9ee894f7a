"""Piece: a tensor as a tower's graph reads it, of tensors of a projector's file; and how most are found by their names.

Made by the families, read by file.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from albireo.models.gguf.header import Entry

F32 = NDArray[np.float32]
_LAYER = re.compile(r"([va])\.blk\.(\d{1,4})\.(.+)")
#: Last parts of names of linears, norms and convolutions.
_KINDS = ("weight", "bias")


class Piece(NamedTuple):
    """Fields: sources: names in the file. shape: as graphs have it. make: what becomes of their numbers; None: there is
    one, which lies as it is read."""

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    make: Callable[..., F32] | None = None


class Names(NamedTuple):
    """What graphs call tensors. Fields: layer: what names of layers begin with, before the number. parts: of a layer,
    behind "v.blk.N."; ends: of all others. A key or its value that ends with ":" is a whole name; others are modules,
    which have a weight and a bias."""

    layer: str
    parts: Mapping[str, str]
    ends: Mapping[str, str]


def renamed(entries: Mapping[str, Entry], names: Names, width: int) -> Iterator[tuple[str, Piece]]:
    """Each tensor by the name of graphs; one that is not known keeps its own, and is then one too many.

    Args: width: of the residual stream, by which old files are told that call what widens FFNs "down", and the other
    way round.
    """
    for name, entry in entries.items():
        yield _known(name, _turned(name, entries, width), names), Piece((name,), entry.shape)


def _turned(name: str, entries: Mapping[str, Entry], width: int) -> str:
    """What a tensor is to be called."""
    match = _LAYER.fullmatch(name)
    part, _, kind = match[3].partition(".") if match is not None else ("", "", "")
    if match is None or part not in ("ffn_up", "ffn_down"):
        return name
    stem = f"{match[1]}.blk.{match[2]}"
    up = entries.get(f"{stem}.ffn_up.weight")
    if up is None or len(up.shape) != 2 or up.shape[0] != width or up.shape[1] == width:
        return name
    return f"{stem}.{'ffn_down' if part == 'ffn_up' else 'ffn_up'}.{kind}"


def _known(name: str, turned: str, names: Names) -> str:
    match = _LAYER.fullmatch(turned)
    table, rest, before = names.ends, turned, ""
    if match is not None:
        table, rest, before = names.parts, match[3], f"{names.layer}.{int(match[2])}."
    if f"{rest}:" in table:
        return before + table[f"{rest}:"]
    stem, _, kind = rest.rpartition(".")
    return f"{before}{table[stem]}.{kind}" if stem in table and kind in _KINDS else name


def joined(pieces: dict[str, Piece], new: str, *names: str) -> None:
    """Rows of several tensors, one below the other, under a name of their own; nothing where the first is not there."""
    for kind in _KINDS:
        found = [pieces.pop(f"{name}.{kind}") for name in names if f"{name}.{kind}" in pieces]
        if len(found) == len(names):
            rows = sum(piece.shape[0] for piece in found)
            sources = tuple(source for piece in found for source in piece.sources)
            pieces[f"{new}.{kind}"] = Piece(sources, (rows, *found[0].shape[1:]), lambda *each: np.concatenate(each))
        elif found:  # which is then missed by its name
            pieces |= {piece.sources[0]: piece for piece in found}


def in_time(pieces: dict[str, Piece], new: str, first: str, second: str) -> None:
    """Patches of two frames, whose convolution files have as one for each: [E, 3, frame, row, column] as numbers of a
    row. Of other shapes they keep their names, and are then two too many."""
    if all(name in pieces and len(pieces[name].shape) == 4 for name in (first, second)):
        one, other = pieces.pop(first), pieces.pop(second)
        width, channels, *patch = one.shape
        shape = (width, channels * 2 * math.prod(patch))
        sources = one.sources + other.sources
        pieces[new] = Piece(sources, shape, lambda a, b: np.stack([a, b], axis=2).reshape(len(a), -1))


def changed(pieces: dict[str, Piece], name: str, make: Callable[[F32], F32], shape: tuple[int, ...] = ()) -> None:
    """A tensor read otherwise than it lies, where it is there. Args: shape: that it gets; none: it keeps its own."""
    if name in pieces:
        pieces[name] = Piece(pieces[name].sources, shape or pieces[name].shape, make)


def channels_last(pieces: dict[str, Piece], name: str) -> None:
    """A linear of patches whose numbers have their channel last, of a convolution in the file."""
    if name in pieces and len(pieces[name].shape) == 4:
        width, *patch = pieces[name].shape
        changed(pieces, name, lambda n: n.transpose(0, 2, 3, 1).reshape(len(n), -1), (width, math.prod(patch)))


def halves_apart(heads: int) -> Callable[[F32], F32]:
    """Rows of heads, whose pairs lie side by side, with the halves of pairs half a head apart; of a vector, too."""

    def make(numbers: F32) -> F32:
        cut: NDArray[Any] = numbers.reshape(heads, -1, 2, *numbers.shape[1:])
        return np.ascontiguousarray(cut.swapaxes(1, 2)).reshape(numbers.shape)

    return make
