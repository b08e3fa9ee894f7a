"""Few sequences of many positions: attention cuts them into parts, of which no bit depends."""

from __future__ import annotations

import numpy as np
import pytest

from backends.cpu.attention_texts import UNLIKE, VARIANTS, Case, Placement, Types, attend, text
from backends.cpu.harness import assert_same_bits
from in_turn import one_in

#: Of one text of 5,000 positions, or of 1,500 and 2,500: one row, rows of one item and of two, whatever they see.
CASES = [
    Case(4, 1, 64, ((5000, 1),)),
    Case(16, 1, 40, ((4097, 2),), value_dim=34),
    Case(6, 2, 16, ((5000, 20),), has_sinks=True),
    Case(3, 1, 20, ((5000, 3),), window=1500, softcap=2.0),
    Case(2, 1, 8, ((3072, 1),), window=1024, in_chunks=True),
    Case(2, 1, 8, ((2500, 1),), num_keys=2100),
    Case(2, 1, 8, ((2500, 2),), first_key=1100),
    Case(2, 2, 16, ((2500, 2500),), both_ways=True, window=700),
    Case(4, 4, 20, ((5000, 1),), falls=True),
    Case(2, 1, 20, ((2500, 2),), reach=7),
    Case(4, 2, 16, ((5122, 2),), window=1030),
]


@pytest.mark.parametrize(
    ("types", "level", "case"),
    one_in(
        3, [(*v, case) for i, v in enumerate(VARIANTS) for case in (CASES if v[0] in UNLIKE else CASES[i % 5 :: 5])]
    ),
    ids=str,
)
def test_parts_change_no_bit(types: Types, level: str, case: Case) -> None:
    """By one thread, which has no use for parts; by several, who stop in the middle of segments; beside others."""
    if case.value_dim and types.kv in ("int8", "fp8"):
        pytest.skip("there are no such caches")
    if level == "scalar" and case.spans[0][1] > 20:
        pytest.skip("slow, and like the others")
    long, short = text(case, case.spans[0][0], types, 0), text(case, 90, types, 1)
    (whole,) = attend(case, [long], case.spans, types, level, Placement())
    for threads in (2, 3, 8):
        (got,) = attend(case, [long], case.spans, types, level, Placement(threads=threads))
        assert_same_bits(got, whole, f"{threads} threads")
    if not (case.both_ways or case.first_key or case.num_keys):  # short ones have not so many positions
        texts, spans = [short, long, short], [(90, 1), *case.spans, (33, 20)]
        got = attend(case, texts, spans, types, level, Placement(8, seed=3, threads=8))[1]
        assert_same_bits(got, whole, "beside others")


def test_rows_that_see_nothing_are_the_same_in_parts() -> None:
    """Of one item of them no position is in any segment."""
    types, level = VARIANTS[0]
    case = Case(3, 3, 16, ((1200, 1200),), first_key=1100)
    seen = text(case, 1200, types, 0)
    whole, parts = (
        attend(case, [seen], case.spans, types, level, Placement(threads=threads), is_damaged=True)[0]
        for threads in (1, 40)
    )
    assert_same_bits(parts, whole, "40 threads")


@pytest.mark.parametrize("spans", [((4000, 5), (90, 3)), ((4000, 300),)], ids=["like all", "alone"])
def test_rows_that_leave_are_cut_too(spans: tuple[tuple[int, int], ...]) -> None:
    """Also where all rows are enough for every thread, so that only they are."""
    types, level = VARIANTS[0]
    case = Case(4, 1, 16, spans)
    texts = [text(case, context, types, i) for i, (context, _) in enumerate(case.spans)]
    every = np.concatenate(attend(case, texts, case.spans, types, level, Placement()))
    for threads in (1, 8):
        place = Placement(threads=threads)
        leaving = attend(case, texts, case.spans, types, level, place, leaving=(4, 7))
        assert_same_bits(np.concatenate(leaving), every[[4, 7]], f"{threads} threads")
