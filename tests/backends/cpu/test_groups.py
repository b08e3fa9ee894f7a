"""Which sequences attention takes together. That it changes no bit is in test_attention.py."""

from __future__ import annotations

import numpy as np
import pytest

from albireo import _native
from backends.cpu.harness import Cache, Guarded, KVShape, pool
from step_batches import Work, make_step

SIZE = 16


def groups(work: list[tuple[list[int], int, int]], threads: int = 1) -> list[list[int]]:
    return sorted(map(sorted, planned(work, threads).groups))


def planned(work: list[tuple[list[int], int, int]], threads: int) -> _native.Program:
    """work: (blocks, context, new tokens) of each sequence. Two KV heads of seven query heads each."""
    num_blocks = 1 + max(max(blocks) for blocks, _, _ in work)
    cache = Cache(KVShape("float32", 2, 8, SIZE), num_blocks)
    cache.fill(np.arange(num_blocks * SIZE), *np.zeros((2, num_blocks * SIZE, 2, 8), np.float32))
    step = make_step([Work([0] * new, context - new, blocks) for blocks, context, new in work], SIZE, "none", "none")
    program = _native.Program(pool(threads), 0)
    x, out = Guarded(np.zeros((step.num_tokens, 14 * 8))), Guarded.poisoned((step.num_tokens, 14 * 8))
    args = {"x": x.address, "out": out.address, "kv": cache.memory.address, "num_heads": 14, "scale": 1.0}
    program.add("attention", "scalar", "float32", args | cache.shape.args)
    top = np.zeros((0, _native.TOP_MOST))
    program.run(*step.arrays, top.astype(np.int32), top.astype(np.float32))
    assert np.isfinite(out.values).all()
    return program


def blocks(common: int, own: range) -> list[int]:
    return [*range(1, 1 + common), *own]


def test_sequences_behind_one_prefix_are_taken_together() -> None:
    work = [(blocks(8, range(100 + 4 * i, 102 + 4 * i)), 150, 1) for i in range(5)]
    assert groups(work) == [[0, 1, 2, 3, 4]]
    # though others stand between them
    other = (list(range(50, 60)), 150, 1)
    assert groups([work[0], other, work[1], work[2]]) == [[0, 2, 3], [1]]


@pytest.mark.parametrize(
    ("work", "why"),
    [
        ([(blocks(3, range(100, 107)), 150, 1), (blocks(3, range(110, 117)), 150, 1)], "less than a tile is shared"),
        ([(blocks(5, range(100, 130)), 550, 1), (blocks(5, range(130, 160)), 550, 1)], "less than a quarter is shared"),
        (
            [(blocks(8, range(100, 104)), 180, 20), (blocks(8, range(110, 114)), 180, 20)],
            "many tokens need no others",
        ),
        ([(blocks(8, range(0)), 20, 1), (blocks(8, range(0)), 20, 1)], "their rows see less than a tile"),
    ],
)
def test_who_gains_nothing_is_taken_alone(work: list[tuple[list[int], int, int]], why: str) -> None:
    assert groups(work) == [[0], [1]], why


def test_every_thread_gets_work() -> None:
    """Four sequences of seven rows each and KV head: one item a head would leave six of eight threads without any."""
    work = [(blocks(8, range(100 + 4 * i, 102 + 4 * i)), 150, 1) for i in range(4)]
    assert groups(work, 1) == [[0, 1, 2, 3]]
    assert groups(work, 8) == [[0], [1], [2], [3]]


def parts(contexts: list[int], threads: int) -> list[int]:
    """Of sequences of so many positions, of each of which one is new: in the order of contexts."""
    ends = np.cumsum([0, *(-(-context // SIZE) for context in contexts)])
    work = [(list(range(1 + a, 1 + b)), n, 1) for a, b, n in zip(ends, ends[1:], contexts, strict=False)]
    return planned(work, threads).parts


def test_few_sequences_of_many_positions_are_cut_among_threads() -> None:
    """Two KV heads each: two items a thread, or as many as there are segments of 1,024 positions."""
    assert parts([9000], 1) == [1]
    assert parts([9000], 2) == [2]
    assert parts([9000], 8) == [8]
    assert parts([9000], 64) == [9], "segments"
    assert parts([1000], 8) == [1], "one segment"
    assert parts([9000] * 8, 4) == [1] * 8, "as many items as threads want"


def test_who_sees_much_more_than_others_is_cut() -> None:
    assert parts([200] * 8 + [9000], 4) == [1] * 8 + [4]
