"""Attention both ways whose scores have numbers added by distance: against the reference; and a text's bits in any
company."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.parts.by_distance import ByDistance
from albireo.backends.reference.attention import added_by_columns
from albireo.graph.distance_columns import distance_columns
from backends.cuda.test_attention import WHOLE, Sequence, Shape, World

pytestmark = pytest.mark.usefixtures("ordered_dot")


@dataclass(frozen=True)
class Added:
    """Fields: table: of each distance; else rows say what is added, and keys, too. columns: of a head's numbers."""

    reach: int
    table: bool = False
    keys: bool = False
    columns: int = 0


class Distant(World):
    """Texts whose scores have something added that is as large as they are."""

    def __init__(self, shape: Shape, lengths: list[int], how: Added, rows: list[int] | None = None) -> None:
        """rows: of each sequence; None: all of its context."""
        rows = rows or lengths
        super().__init__(shape, lengths, rows)
        rng, self.how = np.random.default_rng(9), how
        self.table = rng.standard_normal((2 * how.reach + 1, shape.num_heads), np.float32) * 2
        width = shape.num_heads * how.columns
        scale = np.float32(2 / shape.scale)
        self.from_rows, self.from_keys = (
            [rng.standard_normal((length, width), np.float32) * scale for length in rows] for _ in range(2)
        )

    def added(self, order: list[int], num_tokens: int) -> ByDistance:
        how, shape = self.how, self.shape
        if how.table:
            scaled = torch.from_numpy(self.table / np.float32(shape.scale)).t().contiguous()
            return ByDistance(how.reach, distances=scaled)
        sides = []
        for parts in (self.from_rows, self.from_keys)[: 1 + how.keys]:
            rows = torch.full((num_tokens, parts[0].shape[1] + 3), float("nan"))[:, :-3]
            filled = np.concatenate([parts[i] for i in order])
            rows[: len(filled)] = torch.from_numpy(filled)
            sides.append(rows)
        columns = None
        if how.columns < 2 * how.reach:
            columns = torch.tensor(distance_columns(how.columns, how.reach), dtype=torch.int32)
        return ByDistance(how.reach, None, sides[0], sides[1] if how.keys else None, columns)

    def told_of(self, each: Sequence) -> tuple[dict[str, Any], float]:
        if self.how.table:
            return {"distances": self.table}, float(np.abs(self.table).max())
        i = next(i for i, other in enumerate(self.sequences) if other is each)
        attrs = {"num_heads": self.shape.num_heads, "reach": self.how.reach, "scale": self.shape.scale}
        keys = self.from_keys[i] if self.how.keys else None
        most = np.abs(self.from_rows[i]).max() + (np.abs(keys).max() if keys is not None else 0)
        positions = np.arange(each.context - len(each.q), each.context, dtype=np.int32)
        added = added_by_columns(self.from_rows[i], keys, attrs, positions, each.context)
        return {"added": added}, float(most * self.shape.scale)

    def run(self, order: list[int], *args: Any, **kwargs: Any) -> torch.Tensor:
        return super().run(order, *args, **{"by_distance": not self.how.table, **kwargs})


CASES = [
    (Shape(both_ways=True, num_kv_heads=4), Added(40, table=True)),
    (Shape(both_ways=True, dtype="float32", kv="float32", head_dim=24, num_heads=3, num_kv_heads=1), Added(7, True)),
    (Shape(both_ways=True, kv="int8", window=33), Added(200, table=True)),
    (Shape(both_ways=True, num_kv_heads=4, block_size=8), Added(40, keys=True, columns=16)),
    (Shape(both_ways=True, dtype="float32", kv="float32", num_heads=2), Added(30, columns=60)),
    (Shape(both_ways=True, dtype="float16", kv="float16", num_heads=2, num_kv_heads=1), Added(9, True, columns=6)),
]


@pytest.mark.parametrize(("shape", "how"), CASES, ids=str)
def test_scores_have_what_distances_say(shape: Shape, how: Added) -> None:
    world, order = Distant(shape, WHOLE, how), [3, 0, 4, 2, 1]
    world.check(order, world.run(order, (3, 2), multiprocessors=64))


@pytest.mark.parametrize(
    "shape",
    [
        Shape(both_ways=True, window=33, softcap=5.0, num_kv_heads=4),
        Shape(window=20, softcap=5.0, num_kv_heads=1, has_sinks=True),
        Shape(kv="int8", num_heads=2),
    ],
    ids=str,
)
def test_what_rows_add_is_capped_with_the_score_in_windows_and_causal_rows(shape: Shape) -> None:
    """Of causal rows a few are in the step."""
    rows = None if shape.both_ways else [1, 21, 40, 1, 30]
    world, order = Distant(shape, WHOLE, Added(30, columns=60), rows), [3, 0, 4, 2, 1]
    world.check(order, world.run(order, (3, 2), multiprocessors=64))


@pytest.mark.parametrize(("shape", "how"), [CASES[0], CASES[3]], ids=str)
def test_bits_are_the_same_in_any_company_and_tiles(shape: Shape, how: Added) -> None:
    """Of rows of no text whatever stands where theirs would be."""
    world = Distant(shape, [150, 21, 90], how)
    whole = torch.split(world.run([0, 1, 2]), [150, 21, 90])
    for order, tile_rows, padding in (([1], 16, (0, 0)), ([2, 0], 16, (3, 1)), ([1, 2], None, (5, 2))):
        got = world.run(order, padding, tile_rows=tile_rows)
        wanted = torch.cat([whole[i] for i in order])
        assert torch.equal(got[: len(wanted)], wanted), (order, tile_rows)


def test_what_leaves_nothing_of_others_is_not_seen() -> None:
    """-inf of all that is not near, as of frames that see a few before them: whole tiles say nothing."""
    shape, reach = Shape(both_ways=True, num_heads=1, num_kv_heads=1), 100
    world = Distant(shape, [150], Added(reach, columns=2 * reach))
    away = np.arange(2 * reach) - reach
    world.from_rows[0][:, (away < 0) | (away > 20)] = -np.inf
    out = world.run([0], multiprocessors=64)
    near = Distant(Shape(num_heads=1, num_kv_heads=1, window=21), [150], Added(1, table=True))
    near.table[:] = 0.0
    world.from_rows[0][:, (away >= 0) & (away <= 20)] = 0.0
    got, wanted = world.run([0], multiprocessors=64), near.run([0], multiprocessors=64)
    assert not out.isnan().any() and (got - wanted).abs().max() <= 2.0**-7
