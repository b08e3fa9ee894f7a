"""choose_keys of blocks, and attention of which each KV head has a list of its own, at every level: against numpy, and
bit by bit against each head alone. Slots of the cache that no sequence has written hold NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.rounding import round_to
from backends.cpu.harness import F32, F64, Call, Guarded, KVShape, assert_same_bits, run
from backends.cpu.test_chosen_keys import Case, Ints, Spans, Text, attend, lay, lists_of, of_every_level, rows_of, text

#: Heads, positions of a block, how many are taken, and how many of them are the last whatever they are.
SHAPES = [(2, 8, 3, 1), (3, 1, 5, 2), (1, 20, 2, 2), (4, 128, 1, 1), (2, 32, 4, 3)]
SPANS = ((1, 1), (30, 30), (129, 3), (300, 12), (257, 1))


@dataclass(frozen=True)
class Heads:
    """Queries [n, heads, D] and keys [n, 1, D] of a sequence."""

    q: F32
    keys: F32

    @property
    def scores(self) -> F64:
        """[heads, n, n]."""
        return np.einsum("thd,sd->hts", self.q.astype(np.float64), self.keys[:, 0].astype(np.float64))


def heads_of(length: int, count: int, dim: int, types: tuple[str, str], seed: int, *, whole: bool) -> Heads:
    """whole: of few small whole numbers, which every sum is exact of, so that many scores are equal."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> F32:
        return rng.integers(-2, 3, shape).astype(np.float32) if whole else rng.standard_normal(shape, np.float32)

    return Heads(round_to(drawn(length, count, dim), types[0]), round_to(drawn(length, 1, dim), types[1]))


def best_blocks(scores: F64, block: int, taken: int, nearest: int) -> list[int]:
    """Positions of a row's blocks, of equals the first. Args: scores: of positions up to its own."""
    worths = np.maximum.reduceat(scores, np.arange(0, len(scores), block))
    worths[-nearest:] = np.inf
    best = np.sort(np.argsort(-worths, kind="stable")[:taken])
    places = (best[:, None] * block + np.arange(block)).reshape(-1)
    return [int(s) for s in places[places < len(scores)]]


def choose(
    texts: Sequence[Heads],
    spans: Spans,
    types: tuple[str, str],
    level: str,
    shape: tuple[int, int, int, int],
    *,
    block_size: int = 16,
    threads: int = 1,
    seed: int = 0,
) -> list[Ints]:
    """[new, heads, n] of each sequence."""
    (heads, block, taken, nearest), dim = shape, texts[0].q.shape[2]
    keys, count = [each.keys for each in texts], block * taken
    laid = lay(spans, KVShape(types[1], 1, dim, block_size, False), keys, keys, seed)
    q, stride = rows_of(spans, [each.q for each in texts]), heads * count + 5
    ids = np.full((len(q) + 1, stride), 7, np.int32)
    args: dict[str, Any] = {"x": Guarded(q.reshape(len(q), -1), types[0]), "ids": ids.ctypes.data}
    args |= {"kv": laid.cache.memory, "num_heads": heads, "n": count, "y_stride": stride, "x_dtype": types[0]}
    args |= {"num_keys": max(context for context, _ in spans), "window": block, "first_key": nearest}
    run([Call("choose_keys", level, types[0], args | laid.cache.shape.args)], laid.step, threads)
    assert (ids[:, heads * count :] == 7).all() and (ids[-1] == 7).all(), "written past the ends"
    rows = ids[:-1, : heads * count].reshape(len(q), heads, count)
    return np.split(rows, laid.step.query_start[1:-1])


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("choose_keys"))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_best_blocks_are_chosen(dtype: str, kv: str, level: str, shape: tuple[int, int, int, int]) -> None:
    """Scores are whole numbers of which each level makes the same; of equals the first."""
    heads, block, taken, nearest = shape
    types, spans = (dtype, kv), SPANS[:3] if level == "scalar" else SPANS
    texts = [heads_of(context, heads, 12, types, i, whole=True) for i, (context, _) in enumerate(spans)]
    lists = choose(texts, spans, types, level, shape, block_size=8 if block == 8 else 32)
    for each, (context, new), found in zip(texts, spans, lists, strict=True):
        for row in range(new):
            position = context - new + row
            for head in range(heads):
                right = best_blocks(each.scores[head, position, : position + 1], block, taken, nearest)
                ours = found[row, head]
                assert ours[: len(right)].tolist() == right, (context, position, head)
                assert (ours[len(right) :] == -1).all()


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("choose_keys"))
def test_choices_depend_on_the_sequence_alone(dtype: str, kv: str, level: str) -> None:
    types, context, shape = (dtype, kv), 140, (3, 8, 4, 1)
    own, other = (heads_of(length, 3, 20, types, i, whole=False) for i, length in enumerate((context, 60)))
    (whole,) = choose([own], [(context, context)], types, level, shape)
    assert len(np.unique(whole[-1], axis=0)) == 3, "heads choose alike, which shows nothing"
    for end, new, block_size, threads in ((140, 140, 8, 3), (140, 1, 32, 1), (131, 17, 16, 2), (70, 70, 8, 1)):
        spans = [(60, 1), (end, new), (33, 30)]
        place = {"block_size": block_size, "threads": threads, "seed": end + new}
        got = choose([other, own, other], spans, types, level, shape, **place)[1]
        assert np.array_equal(got, whole[end - new : end]), (end, new, block_size)


CASES = [
    Case(4, 2, 40, ((9, 9), (150, 3), (70, 70)), 24),
    Case(6, 3, 16, ((300, 20), (129, 1)), 128, 8),
    Case(40, 2, 20, ((200, 18),), 32, 32),
]


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("attention"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_head_sees_its_own_list(dtype: str, kv: str, level: str, case: Case) -> None:
    """Bit by bit what it gives alone, with a cache of its own; what that is, is for test_chosen_keys.py."""
    types, group = (dtype, kv), case.queries // case.keys
    texts = [text(case, context, types, i) for i, (context, _) in enumerate(case.spans)]
    lists = [[lists_of(len(t.q), case.count, 10 * i + g) for g in range(case.keys)] for i, t in enumerate(texts)]
    joined = [Text(t.q, t.k, t.v, np.concatenate(own, axis=1)) for t, own in zip(texts, lists, strict=True)]
    place = {"block_size": case.block_size, "threads": 2}
    ours = attend(case, joined, case.spans, types, level, own=True, **place)
    for head in range(case.keys):
        one = Case(group, 1, case.dim, case.spans, case.count, case.block_size)
        rows = slice(head * group, (head + 1) * group)
        alone = [
            Text(t.q[:, rows], t.k[:, head : head + 1], t.v[:, head : head + 1], own[head])
            for t, own in zip(texts, lists, strict=True)
        ]
        wanted = attend(one, alone, case.spans, types, level, **place)
        for got, each in zip(ours, wanted, strict=True):
            assert_same_bits(np.ascontiguousarray(got[:, rows]), each, f"KV head {head}")
