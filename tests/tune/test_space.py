"""What is tried: values that make a kernel do something else, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.graph.tuning import ALLOWED, SHAPES, CallKey, Tuning
from albireo.tune.space import Point


def point(
    rows: int, level: str = "avx512bf16", threads: int = 2, k: int = 4864, n: int = 896, weight: str = "bfloat16"
) -> Point:
    key = CallKey("linear", f"linear.{weight}.{level}", (("n", n), ("k", k), ("act", "none")))
    return Point(key, 0, (rows,), threads)


def tried(point: Point, name: str) -> set[int]:
    return {getattr(candidate, name) for candidate in point.candidates(name, Tuning())}


def test_a_tall_tile_has_a_fetch_distance_and_no_k_blocks() -> None:
    few = point(16)
    assert tried(few, "fetch_bytes") == set(ALLOWED["fetch_bytes"]) - {Tuning().fetch_bytes}
    assert tried(few, "block_steps") == set()
    assert tried(few, "slab_rows") == set()


def test_wide_tiles_have_k_blocks_and_no_fetch_distance() -> None:
    many = point(48)
    assert tried(many, "fetch_bytes") == set()
    # 2,432 steps of two k: 4,096 is one block, and so is 2,432
    assert tried(many, "block_steps") == {256, 512, 2048, 4096}
    # 448 steps: one block, as with the default
    assert tried(point(48, k=896), "block_steps") == {256}


def test_a_threshold_is_tried_where_it_divides() -> None:
    # 0 to 12 rows a tile at most: wide tiles all the same
    assert len(tried(point(16), "tall_rows")) == 1
    # a single row: only none at all is something else
    assert tried(point(1), "tall_rows") == {0}
    # 64 rows are one chunk: none is for a tall tile
    assert tried(point(64), "tall_rows") == set()
    assert tried(point(16, "avx2"), "tall_rows") == set()
    assert tried(point(16, "avx2"), "block_steps") != set()


def test_in_tile_registers_only_codes_are_fetched_ahead() -> None:
    for weight, is_fetched in (("bfloat16", False), ("fp8", True), ("fp8.g128", True)):
        few = point(8, "amx", weight=weight)
        assert tried(few, "tall_rows") == tried(few, "block_steps") == set(), weight
        assert bool(tried(few, "fetch_bytes")) == is_fetched, weight


def test_slabs_are_tried_where_there_are_several() -> None:
    assert tried(point(2048), "slab_rows") == {96, 192, 960, 1920}
    assert tried(point(128), "slab_rows") == {96}


def test_one_thread_has_one_queue() -> None:
    assert tried(point(16, threads=1), "one_queue") == set()
    assert tried(point(16), "one_queue") == {1}


def test_claims_are_tried_where_they_cut_differently() -> None:
    # 14 panels: 7 a thread; with claims of a quarter one at a time
    assert tried(point(16), "claims") == set()
    assert tried(point(16, n=14 * 64 * 16), "claims") != set()


@pytest.mark.parametrize("family", SHAPES)
def test_every_family_has_points(family: str) -> None:
    values: dict[str, int | str] = {name: 64 for name in SHAPES[family]} | {"act": "silu_mul"}
    key = CallKey(family, f"{family}.float32.avx512", tuple((name, values[name]) for name in SHAPES[family]))
    many = Point(key, 6, (2048,), 2)
    assert {c for name in many.parameters() for c in many.candidates(name, Tuning())}
    assert set(many.parameters()) <= set(ALLOWED)


def test_candidates_differ_in_one_parameter_from_what_is_current() -> None:
    current = Tuning(claims=32, one_queue=1)
    for name in point(2048).parameters():
        for candidate in point(2048).candidates(name, current):
            assert set(candidate.changes(current)) == {name}
            assert replace(candidate, **{name: getattr(current, name)}) == current
