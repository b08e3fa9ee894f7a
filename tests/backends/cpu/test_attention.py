"""attention at every level and type: against numpy float64, and bit by bit against itself; see attention_texts.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.rounding import round_kv, round_to
from albireo.dtypes import KV_CODES
from backends.cpu.attention_texts import (
    CASES,
    TYPES,
    UNLIKE,
    VARIANTS,
    Case,
    Placement,
    Spans,
    Text,
    Types,
    attend,
    exactly,
    text,
)
from backends.cpu.harness import (
    F32,
    ROUNDOFF,
    Array,
    Cache,
    Call,
    CodeCache,
    Guarded,
    KVShape,
    assert_close,
    assert_same_bits,
    cache_of,
    decode,
    normal,
    run,
)
from in_turn import one_in
from step_batches import Work, make_step


@pytest.mark.parametrize(("types", "level", "case"), one_in(5, CASES), ids=lambda v: str(v))
def test_attention(types: Types, level: str, case: Case) -> None:
    texts = [text(case, context, types, i) for i, (context, _) in enumerate(case.spans)]
    ours = attend(case, texts, case.spans, types, level, Placement(case.block_size))
    exact = [exactly(case, t, *span, types) for t, span in zip(texts, case.spans, strict=True)]
    value, error = (np.concatenate(arrays) for arrays in zip(*exact, strict=True))
    assert_close(decode(np.concatenate(ours), types.compute), value, error, types.compute, types.at_most)


INVARIANT = [
    Case(4, 2, 20, ((150, 150),)),
    Case(3, 1, 64, ((150, 150),), window=50),
    Case(3, 1, 20, ((150, 150),), window=70, in_chunks=True),
    Case(2, 1, 16, ((1100, 100),), softcap=2.0),
    Case(2, 2, 8, ((2100, 80),), window=1050, has_sinks=True),
    Case(20, 1, 40, ((150, 150),), value_dim=34),
    Case(4, 2, 20, ((150, 130),), first_key=10),
    Case(4, 2, 20, ((1100, 100),), num_keys=33),
    Case(4, 4, 20, ((1100, 100),), falls=True),
]
SLOW_INVARIANT = [replace(INVARIANT[0], spans=((70, 70),)), replace(INVARIANT[3], spans=((1060, 40),))]


def invariant_cases(types: Types, level: str) -> list[Case]:
    found = SLOW_INVARIANT if level == "scalar" else INVARIANT
    if types not in UNLIKE and level != "scalar":
        found = found[TYPES.index(types) % 3 :: 3]
    return [case for case in found if not (case.value_dim and types.kv in KV_CODES)]


@pytest.mark.parametrize(
    ("types", "level", "case"),
    one_in(5, [(*v, case) for v in VARIANTS for case in invariant_cases(*v)]),
    ids=lambda v: str(v),
)
def test_bits_depend_on_the_sequence_alone(types: Types, level: str, case: Case) -> None:
    """Whole; in chunks; row by row; blocks of 8, 16 and 32, in another order; by 1, 2, 3 threads; beside others."""
    ((context, new),) = case.spans
    start = context - new
    t, other = text(case, context, types, 0), text(case, 90, types, 1)
    (whole,) = attend(case, [t], [(context, new)], types, level, Placement())

    def check(end: int, count: int, place: Placement, before: Spans = (), after: Spans = ()) -> None:
        texts = [*[other] * len(before), t, *[other] * len(after)]
        got = attend(case, texts, [*before, (end, count), *after], types, level, place)[len(before)]
        what = f"{count} rows to {end}, {place}, between {before} and {after}"
        assert_same_bits(got, whole[end - count - start : end - start], what)

    for block_size in (8, 16, 32):
        for threads in (1, 2, 3):
            check(context, new, Placement(block_size, seed=block_size + threads, threads=threads))
    for size in (7, 16, 33, 64):
        for end in range(start + size, context + 1, size * (3 if size == 7 else 1)):
            check(end, size, Placement((8, 16, 32)[end % 3], seed=end))
    for end in {start + 1, start + 2, *range(start + 1, context + 1, 11), *range(1022, 1030), context}:
        if start < end <= context:
            check(end, 1, Placement((8, 16, 32)[end % 3], seed=end, threads=1 + end % 3), before=[(90, 1)])
            if end % 2:
                check(end, 1, Placement(), before=[(33, 20)], after=[(90, 1)])


#: Windows, and distances that have scores of their own.
SIGHTS = ((0, 0), (40, 0), (0, 30))


@pytest.mark.parametrize(
    ("types", "level", "window", "reach"),
    one_in(
        2,
        [(*v, *sight) for i, v in enumerate(VARIANTS) for sight in (SIGHTS if v[0] in UNLIKE else SIGHTS[i % 3 :][:1])],
    ),
    ids=str,
)
def test_bits_of_rows_that_see_both_ways(types: Types, level: str, window: int, reach: int) -> None:
    """Whole; the last rows alone; blocks of any size, in another order; by 1, 2, 3 threads; beside others."""
    context = 75 if level == "scalar" else 300
    case = Case(4, 2, 20, ((context, context),), window=window, both_ways=True, reach=reach)
    t, other = text(case, context, types, 0), text(case, 60, types, 1)
    (whole,) = attend(case, [t], [(context, context)], types, level, Placement())
    for count in (1, 2, 47, 70, context):
        for place in (Placement(8, seed=1), Placement(32, seed=2, threads=2), Placement(16, seed=3, threads=3)):
            _, got, _ = attend(case, [other, t, other], [(60, 60), (context, count), (60, 3)], types, level, place)
            assert_same_bits(got, whole[context - count :], f"{count} rows, {place}")
    leaving = [0, context - 1, 37, 37, 5, 64]
    for picks in (True, False):
        spans, rows = [(60, 60), (context, context)], [60 + row for row in leaving]
        (got,) = attend(case, [other, t], spans, types, level, Placement(), leaving=rows, picks=picks)
        assert_same_bits(got, whole[leaving], f"rows that leave, {picks}")


@pytest.mark.parametrize(
    ("types", "level", "window"),
    one_in(
        3,
        [(*v, window) for i, v in enumerate(VARIANTS) for window in ((0, 33) if v[0] in UNLIKE else (33 * (i % 2),))],
    ),
    ids=str,
)
def test_texts_of_every_length_both_ways(types: Types, level: str, window: int) -> None:
    """The last rows of each, to which all of it is behind or near, and of which one sees another that is ahead. Of more
    than two tiles of 64 keys lengths around their ends."""
    lengths = (*range(1, 131), 191, 192, 193, 255, 256, 257, 299, 300)
    case = Case(2, 1, 8, tuple((length, min(length, 2)) for length in lengths), window=window, both_ways=True)
    drawn = text(case, 600, types, 0)
    texts = [Text(*(a[length : 2 * length] for a in (drawn.q, drawn.k, drawn.v))) for length, _ in case.spans]
    ours = attend(case, texts, case.spans, types, level, Placement())
    exact = [exactly(case, t, *span, types) for t, span in zip(texts, case.spans, strict=True)]
    value, error = (np.concatenate(arrays) for arrays in zip(*exact, strict=True))
    assert_close(decode(np.concatenate(ours), types.compute), value, error, types.compute, types.at_most)


@pytest.mark.parametrize("window", [0, 9])
@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_rows_that_see_to_an_end(types: Types, level: str, window: int) -> None:
    """From their own window to the end that the step says; where the kernel does not ask for ends, to themselves."""
    case = Case(4, 2, 20, ((75, 75),), window=window)
    t, ends = text(case, 75, types, 0), np.zeros(75, np.int32)
    ends[10:40] = 40
    plain, seeing, causal = (
        attend(case, [t], case.spans, types, level, Placement(), **more)[0]
        for more in ({}, {"ends": ends}, {"ends": ends, "is_causal": True})
    )
    assert_same_bits(causal, plain, "nobody asks")
    is_changed = (decode(seeing, types.compute) != decode(plain, types.compute)).any(axis=(1, 2))
    assert is_changed[10:39].all() and not is_changed[39:].any() and not is_changed[:10].any()
    for row in (10, 25, 39):
        # what the last row of a text would see that ends there, whose window reaches as far back as this one's
        turned = replace(t, q=np.concatenate([t.q[:39], t.q[row : row + 1]]))
        wider = replace(case, window=window and window + 39 - row)
        (alone,) = attend(wider, [turned], [(40, 1)], types, level, Placement())
        assert_same_bits(seeing[row : row + 1], alone, f"row {row}")


#: What sequences of one step share of a text, in blocks, and what each has of its own: (shared, context, new).
SHARING = [
    ((64, 1100, 1), (64, 1030, 1), (64, 1025, 2), (64, 1024, 1)),  # ends in and at a segment
    ((20, 321, 1),) * 9,  # more rows than an item has
    ((9, 150, 1), (9, 160, 3), (0, 70, 1), (9, 144, 1), (3, 60, 1)),  # another in between; less than a tile
    ((8, 129, 1), (8, 128, 1), (8, 140, 40), (8, 131, 8)),  # sees just what is shared; one of many tokens
    ((40, 700, 1), (40, 641, 1), (12, 200, 1), (12, 193, 1)),  # two groups
]


_SLOPES = Guarded(2.0 ** -np.linspace(1, 8, 14, dtype=np.float32)[None])
#: What of a sequence is seen, and that scores fall with distance.
SEEN: list[dict[str, Any]] = [{}, {"window": 100}, {"num_keys": 60}, {"first_key": 15}, {"slopes": _SLOPES}]


Sharing = tuple[tuple[int, int, int], ...]


@lru_cache(maxsize=1)
def sharing_blocks(case: Case, sharing: Sharing, types: Types) -> tuple[list[Work], list[F32], Cache | CodeCache]:
    """Of each sequence its work and its queries [new, heads * D]; and the cache, of blocks of 16, that all lie in."""
    size, few = 16, replace(case, queries=1)  # of whose queries none is asked
    base = text(few, max(shared for shared, _, _ in sharing) * size, types, 0)
    cache = cache_of(KVShape(types.kv, case.keys, case.dim, size), 400)
    free = iter(np.random.default_rng(1).permutation(400).tolist())
    common = [next(free) for _ in range(len(base.k) // size)]
    cache.fill(np.concatenate([b * size + np.arange(size) for b in common]), base.k, base.v)
    work, q = [], []
    for i, (shared, context, new) in enumerate(sharing):
        own, table = text(few, context, types, 1 + i), list(common[:shared])
        table += [next(free) for _ in range(-(-context // size) - shared)]
        at = np.arange(shared * size, context)
        cache.fill(np.asarray(table)[at // size] * size + at % size, own.k[at], own.v[at])
        work.append(Work([0] * new, context - new, table))
        q.append(normal(new, case.queries * case.dim, seed=1 + i, dtype=types.compute))
    return work, q, cache


@pytest.mark.parametrize(
    ("types", "level", "sharing", "seen"),
    one_in(
        4,
        [
            (*v, sharing, seen)
            for i, v in enumerate(v for v in VARIANTS if v[1] != "scalar")
            for j, sharing in enumerate(SHARING)
            for seen in (SEEN if v[0] == Types("bfloat16", "bfloat16") else SEEN[(i + j) % len(SEEN) :][:1])
        ],
    ),
    ids=str,
)
def test_shared_blocks_change_no_bit(types: Types, level: str, sharing: Sharing, seen: dict[str, Any]) -> None:
    """Sequences whose first positions lie in the same blocks are computed together, and as if each were alone."""
    case = Case(14, 2, 64, ())
    work, q, cache = sharing_blocks(case, sharing, types)

    def out(which: Sequence[int], threads: int) -> Array:
        rows = np.concatenate([q[i] for i in which])
        stored = Guarded.poisoned(rows.shape, types.compute)
        args = {"x": Guarded(rows, types.compute), "out": stored, "kv": cache.memory, "num_heads": case.queries}
        args |= {
            "window": 0,
            "scale": case.scale,
            "softcap": 0.0,
            "x_dtype": types.compute,
            "out_dtype": types.compute,
            **seen,
        }
        step = make_step([work[i] for i in which], cache.shape.block_size)
        run([Call("attention", level, types.compute, args | cache.shape.args)], step, threads)
        return stored.stored

    alone = np.concatenate([out([i], 1) for i in range(len(work))])
    for threads in (1, 2, 3):
        assert_same_bits(out(range(len(work)), threads), alone, f"{threads} threads")


@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_long_prompts_have_the_bits_of_short_chunks(types: Types, level: str) -> None:
    """Items of 96 rows where that leaves 128 of them, else of 48."""
    case = Case(64, 16, 8, ((210, 210),))
    t = text(case, 210, types, 0)
    (whole,) = attend(case, [t], case.spans, types, level, Placement(threads=2))
    for end, count in ((210, 100), (110, 110)):
        (chunk,) = attend(case, [t], [(end, count)], types, level, Placement())
        assert_same_bits(chunk, whole[end - count : end], f"{count} tokens to {end}")


@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_other_heads_do_not_matter(types: Types, level: str) -> None:
    """A head of a group of eight has the bits it has alone."""
    case = Case(8, 2, 20, ((75, 75),))
    t = text(case, 75, types, 0)
    (whole,) = attend(case, [t], case.spans, types, level, Placement())
    for head in (0, 3, 5, 7):
        kv = slice(head // 4, head // 4 + 1)
        alone = Text(t.q[:, head : head + 1], t.k[:, kv], t.v[:, kv])
        (one,) = attend(replace(case, queries=1, keys=1), [alone], case.spans, types, level, Placement())
        assert_same_bits(one[:, 0], whole[:, head], f"head {head}")


def assert_means(out: Array, wanted: Array, types: Types, what: str = "") -> None:
    """Equal where queries and cache are of one type; else but for the rounding of a probability, a scale and a code."""
    if types.compute != types.kv:
        off = {"int8": 2**-7, "fp8": 2**-4}.get(types.kv, ROUNDOFF[types.compute] * 2)
        least = 0.01 if types.kv in KV_CODES else 0.0
        np.testing.assert_allclose(decode(out, types.compute), wanted, rtol=off, atol=least, err_msg=what)
    else:
        assert np.array_equal(out, Guarded(round_to(wanted, types.compute), types.compute).stored), what


@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_scores_far_apart(types: Types, level: str) -> None:
    """One key takes all, early and late, in the first and in a later segment; large scores do not overflow."""
    case = Case(1, 1, 16, ((1030, 1),))
    t = text(case, 1030, types, 0)
    for best in (0, 63, 64, 1023, 1024, 1029):
        t.k[:] = -t.q[-1] * 4
        t.k[best] = t.q[-1] * 8
        (out,) = attend(case, [t], case.spans, types, level, Placement())
        assert_means(out, round_kv(t.v[best], types.kv)[None], types, f"key {best}")


@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_equal_scores_average(types: Types, level: str) -> None:
    """With keys of zero the mean of what is seen comes out, exactly where it is a sum of powers of two."""
    case = Case(1, 1, 8, ((16, 16),), window=4)
    t = text(case, 16, types, 0)
    t.k[:], t.v[:] = 0, np.arange(16)[:, None, None]
    (out,) = attend(case, [t], case.spans, types, level, Placement())
    mean = [np.mean(range(max(0, i - 3), i + 1)) for i in range(16)]
    assert_means(out, np.array(mean)[:, None, None].repeat(8, 2), types)


@pytest.mark.parametrize(
    ("operand", "bad", "window"),
    [("q", np.nan, 0), ("q", np.inf, 40), ("k", np.nan, 40), ("k", np.inf, 0), ("v", np.nan, 0), ("v", np.inf, 40)],
)
@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_what_is_no_number_is_seen(types: Types, level: str, window: int, bad: float, operand: str) -> None:
    """A row whose scores or values are not numbers is none itself. Keys it does not see, and other sequences, do not
    matter to it. Queries and keys are positive: a score of minus infinity would be a number, and a weight of zero.
    """
    case, place, at = Case(1, 1, 16, ((100, 100), (9, 9)), window=window), Placement(), 30
    texts = [text(case, 100, types, 0), text(case, 9, types, 1)]
    texts[0].q[:], texts[0].k[:] = np.abs(texts[0].q), np.abs(texts[0].k)
    clean = attend(case, texts, case.spans, types, level, place)
    getattr(texts[0], operand)[at, 0, 3] = bad
    ours = attend(case, texts, case.spans, types, level, place, is_damaged=True)
    is_bad = np.asarray(~np.isfinite(decode(ours[0], types.compute)).all(axis=(1, 2)))
    last = at + 1 if operand == "q" else (at + window if window else 100)
    assert is_bad[at:last].all(), "rows that see it"
    if operand != "v":
        assert not is_bad[:at].any() and not is_bad[last:].any()
        assert_same_bits(ours[0][~is_bad], clean[0][~is_bad], "rows that do not see it")
    assert_same_bits(ours[1], clean[1], "another sequence")
