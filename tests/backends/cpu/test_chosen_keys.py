"""choose_keys, and attention to what it chose, at every level: against the definitions, and bit by bit against
themselves. Slots of the cache that no sequence has written hold NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.reference.rounding import round_to
from albireo.backends.step_inputs import StepInputs
from backends.cpu.harness import (
    F32,
    F64,
    ROUNDOFF,
    Cache,
    Call,
    Guarded,
    KVShape,
    assert_close,
    assert_same_bits,
    chain_error,
    decode,
    run,
    variants,
)
from step_batches import Work, make_step

Ints = NDArray[np.int32]
Spans = Sequence[tuple[int, int]]
#: Types of caches that queries of each type read.
CACHES = {"float32": ("float32", "bfloat16"), "float16": ("float16",), "bfloat16": ("bfloat16", "float32")}


def of_every_level(family: str) -> list[tuple[str, str, str]]:
    """(type of queries, of the cache, level); scalar code is the same whatever queries are."""
    found = [(dtype, kv, level) for dtype, level in variants(family) for kv in CACHES[dtype]]
    return [each for each in found if each[2] != "scalar" or each[0] == each[1]]


@dataclass(frozen=True)
class Laid:
    """Sequences in a cache. spans: (context, how many of its last tokens are computed) of each."""

    step: StepInputs
    cache: Cache
    keys: list[F32]
    values: list[F32]


def lay(spans: Spans, shape: KVShape, keys: Sequence[F32], values: Sequence[F32], seed: int = 0) -> Laid:
    """Keys and values [context, heads, D] of each sequence, in blocks that lie in any order."""
    size = shape.block_size
    blocks = [-(-context // size) for context, _ in spans]
    free = np.random.default_rng(seed).permutation(sum(blocks) + 3)
    tables = np.split(free, np.cumsum(blocks))[:-1]
    work = [Work([0] * new, context - new, table.tolist()) for (context, new), table in zip(spans, tables, strict=True)]
    cache, places = Cache(shape, sum(blocks) + 3), [np.arange(context) for context, _ in spans]
    slots = [table[at // size] * size + at % size for table, at in zip(tables, places, strict=True)]
    cut = [[each[:context] for each, (context, _) in zip(parts, spans, strict=True)] for parts in (keys, values)]
    cache.fill(np.concatenate(slots), *(np.concatenate(parts) for parts in cut))
    return Laid(make_step(work, size), cache, *cut)


def rows_of(spans: Spans, whole: Sequence[F32]) -> F32:
    """What is computed of each sequence's rows."""
    return np.concatenate([each[context - new : context] for each, (context, new) in zip(whole, spans, strict=True)])


# -- choosing ----------------------------------------------------------------------------------------------------------

#: Around blocks, sub-panels and tiles; with fewer positions than are chosen, as many, and more.
SPANS = ((1, 1), (19, 19), (20, 3), (21, 1), (128, 2), (129, 129), (300, 40))
COUNT = 20


@dataclass(frozen=True)
class Scorer:
    """Queries [n, heads, D], weights [n, heads] and keys [n, 1, D] of a sequence."""

    q: F32
    weights: F32
    keys: F32

    @property
    def scores(self) -> F64:
        """[n, n] of each row those of all positions; behind its own there are none."""
        q, keys, weights = (a.astype(np.float64) for a in (self.q, self.keys[:, 0], self.weights))
        found = np.einsum("th,ths->ts", weights, np.maximum(np.einsum("thd,sd->ths", q, keys), 0))
        return np.where(np.tri(len(found), dtype=bool), found, -np.inf)


def scorer(length: int, heads: int, dim: int, types: tuple[str, str], seed: int, *, whole: bool = False) -> Scorer:
    """whole: of few small whole numbers, which every sum is exact of, so that many scores are equal."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> F32:
        return rng.integers(-2, 3, shape).astype(np.float32) if whole else rng.standard_normal(shape, np.float32)

    q, k = round_to(drawn(length, heads, dim), types[0]), round_to(drawn(length, 1, dim), types[1])
    return Scorer(q, drawn(length, heads), k)


def choose(
    scorers: Sequence[Scorer],
    spans: Spans,
    types: tuple[str, str],
    level: str,
    *,
    block_size: int = 16,
    threads: int = 1,
    seed: int = 0,
) -> list[Ints]:
    """[new, COUNT] of each sequence."""
    _, heads, dim = scorers[0].q.shape
    keys = [each.keys for each in scorers]
    laid = lay(spans, KVShape(types[1], 1, dim, block_size, False), keys, keys, seed)
    q, weights = (rows_of(spans, [getattr(s, name) for s in scorers]) for name in ("q", "weights"))
    stride = COUNT + 5
    ids = np.full((len(q) + 1, stride), 7, np.int32)
    args: dict[str, Any] = {
        "x": Guarded(q.reshape(len(q), -1), types[0]),
        "gates": Guarded(weights),
        "ids": ids.ctypes.data,
        "kv": laid.cache.memory,
        "num_heads": heads,
        "n": COUNT,
        "y_stride": stride,
        "num_keys": max(context for context, _ in spans),
        "x_dtype": types[0],
    }
    run([Call("choose_keys", level, types[0], args | laid.cache.shape.args)], laid.step, threads)
    assert (ids[:, COUNT:] == 7).all() and (ids[-1] == 7).all(), "written past the ends"
    return np.split(ids[:-1, :COUNT], laid.step.query_start[1:-1])


def assert_is_a_list(chosen: Ints, position: int) -> Ints:
    """Returns: the positions without what is behind them."""
    count = min(position + 1, COUNT)
    assert (chosen[count:] == -1).all()
    assert (np.diff(chosen[:count]) > 0).all() and chosen[0] >= 0 and chosen[count - 1] <= position
    return chosen[:count]


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("choose_keys"))
@pytest.mark.parametrize(("heads", "dim", "block_size"), [(3, 8, 8), (64, 20, 16), (7, 128, 32)])
def test_the_best_are_chosen(dtype: str, kv: str, level: str, heads: int, dim: int, block_size: int) -> None:
    types = dtype, kv
    spans = SPANS[:5] if level == "scalar" else SPANS
    scorers = [scorer(context, heads, dim, types, i) for i, (context, _) in enumerate(spans)]
    for s, (context, new), lists in zip(
        scorers, spans, choose(scorers, spans, types, level, block_size=block_size), strict=True
    ):
        sizes = np.abs(s.weights.astype(np.float64)) @ (np.abs(s.q).sum(2).max(0) * np.abs(s.keys).max())
        for row, scores in enumerate(s.scores[context - new :]):
            chosen = assert_is_a_list(lists[row], position := context - new + row)
            rest = np.setdiff1d(np.arange(position + 1), chosen)
            error = 4 * np.sqrt(heads + dim) * ROUNDOFF["float32"] * sizes[position]
            assert not rest.size or scores[chosen].min() >= scores[rest].max() - error, f"row {row} of {context}"


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("choose_keys"))
def test_of_equals_the_first(dtype: str, kv: str, level: str) -> None:
    """Scores are whole numbers of which each level makes the same."""
    spans = ((150, 150), (40, 7))
    scorers = [scorer(context, 4, 6, (dtype, kv), i, whole=True) for i, (context, _) in enumerate(spans)]
    for s, (context, new), lists in zip(scorers, spans, choose(scorers, spans, (dtype, kv), level), strict=True):
        for row, scores in enumerate(s.scores[context - new :]):
            right = np.sort(np.argsort(-scores, kind="stable")[: min(COUNT, context - new + row + 1)])
            assert assert_is_a_list(lists[row], context - new + row).tolist() == right.tolist()


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("choose_keys"))
def test_choices_depend_on_the_sequence_alone(dtype: str, kv: str, level: str) -> None:
    types, context = (dtype, kv), 140
    s, other = scorer(context, 5, 20, types, 0), scorer(60, 5, 20, types, 1)
    (whole,) = choose([s], [(context, context)], types, level)
    for end, new, block_size, threads in ((140, 140, 8, 3), (140, 1, 32, 1), (131, 17, 16, 2), (70, 70, 8, 1)):
        got = choose(
            [other, s, other],
            [(60, 1), (end, new), (33, 30)],
            types,
            level,
            block_size=block_size,
            threads=threads,
            seed=end + new,
        )[1]
        assert np.array_equal(got, whole[end - new : end]), (end, new, block_size)


@pytest.mark.parametrize("seed", range(4))
def test_places_of_the_best_numbers(seed: int) -> None:
    """Of any numbers: one query of one channel, whose keys they are; below 0 all are the same."""
    rng, count = np.random.default_rng(seed), 500
    exponents = rng.integers(-60, 60, count)
    numbers = (rng.integers(1, 4, count) * 2.0**exponents * rng.choice([1.0, -1.0], count, p=[0.9, 0.1])).astype(
        np.float32
    )
    ones = np.ones((count, 1), np.float32)
    s = Scorer(ones[..., None], -ones if seed % 2 else ones, numbers[:, None, None])
    level = variants("choose_keys")[-1][1]
    (chosen,) = choose([s], [(count, 1)], ("float32", "float32"), level)
    scores = np.maximum(numbers, 0) * (-1 if seed % 2 else 1)
    assert chosen[0].tolist() == np.sort(np.argsort(-scores, kind="stable")[:COUNT]).tolist()


# -- attention to what was chosen --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Heads, and what they see: count positions of each row. value_dim: the cache has keys alone; 0: values, too."""

    queries: int
    keys: int
    dim: int
    spans: tuple[tuple[int, int], ...]
    count: int
    block_size: int = 16
    value_dim: int = 0
    has_sinks: bool = False

    @property
    def width(self) -> int:
        return self.value_dim or self.dim

    @property
    def scale(self) -> float:
        return float(np.float32(2 / self.dim**0.5))

    @property
    def sinks(self) -> F32 | None:
        return np.linspace(-3, 6, self.queries, dtype=np.float32) if self.has_sinks else None


CASES = [
    Case(4, 1, 40, ((9, 9), (150, 3), (10, 10), (70, 70)), 20, value_dim=32),
    Case(50, 1, 36, ((300, 20), (129, 1)), 100, 8, value_dim=22),
    Case(4, 2, 20, ((300, 4), (30, 30), (21, 1)), 16, 8),
    Case(6, 2, 64, ((260, 5), (140, 1)), 130, 32, has_sinks=True),
    Case(3, 3, 8, ((90, 90),), 1, 16),
    Case(2, 1, 16, ((1300, 2), (2200, 1)), 1100, 16, value_dim=16, has_sinks=True),
]


@dataclass
class Text:
    """Queries, keys and values [n, heads, D] of a sequence, and the list of each row."""

    q: F32
    k: F32
    v: F32
    lists: Ints


def lists_of(length: int, count: int, seed: int) -> Ints:
    """[length, count]: all positions where there are no more; else any, among them long runs."""
    rng, found = np.random.default_rng(seed), np.full((length, count), -1, np.int32)
    for row in range(length):
        places = np.arange(row + 1)
        if row >= count:
            start = int(rng.integers(0, row + 2 - count // 2)) if count > 1 else 0
            run_of = np.arange(start, start + count // 2)
            places = np.sort([*run_of, *rng.permutation(np.setdiff1d(places, run_of))[: count - len(run_of)]])
        found[row, : len(places)] = places
    return found


def text(case: Case, length: int, types: tuple[str, str], seed: int) -> Text:
    rng = np.random.default_rng(seed)
    q, k, v = (
        round_to(rng.standard_normal((length, heads, case.dim), np.float32), kind)
        for heads, kind in ((case.queries, types[0]), (case.keys, types[1]), (case.keys, types[1]))
    )
    return Text(q, k, k[..., : case.value_dim] if case.value_dim else v, lists_of(length, case.count, seed))


def attend(
    case: Case,
    texts: Sequence[Text],
    spans: Spans,
    types: tuple[str, str],
    level: str,
    *,
    block_size: int = 16,
    threads: int = 1,
    seed: int = 0,
    leaving: Sequence[int] = (),
    lists: bool = True,
    own: bool = False,
) -> list[Any]:
    """What is stored for each sequence, [new, heads, D]; of rows that leave, for all of them.

    Args: lists: else all is seen. own: each KV head has a list, one behind the other.
    """
    shape = KVShape(types[1], case.keys, case.dim, block_size, not case.value_dim)
    laid = lay(spans, shape, [t.k for t in texts], [t.v for t in texts], seed)
    step, q, ids = laid.step, rows_of(spans, [t.q for t in texts]), rows_of(spans, [t.lists for t in texts])
    if leaving:
        none = np.zeros(0, np.int32)
        step = replace(step, logit_rows=np.array(leaving, np.int32), top_rows=none, top_counts=none)
    ids = np.ascontiguousarray(np.pad(ids, ((0, 0), (0, 3)), constant_values=-1))
    out = Guarded.poisoned((len(leaving) or len(q), case.queries * case.width), types[0])
    args = {"x": Guarded(q.reshape(len(q), -1), types[0]), "out": out, "kv": laid.cache.memory}
    args |= {"num_heads": case.queries, "value_dim": case.value_dim, "scale": case.scale}
    args |= {"x_dtype": types[0], "out_dtype": types[0]}
    args |= {"ids": ids.ctypes.data, "n": case.count, "y_stride": ids.shape[1]} if lists else {}
    args |= {"num_k_heads": case.keys} if own else {}
    args |= {"rows": "S", "gather": 1} if leaving else {}
    args |= {} if case.sinks is None else {"sinks": Guarded(case.sinks[None])}
    run([Call("attention", level, types[0], args | shape.args)], step, threads)
    assert not np.isnan(out.values).any(), "something that is not of the sequence was read, or nothing was written"
    stored = out.stored.reshape(-1, case.queries, case.width)
    return [stored] if leaving else np.split(stored, step.query_start[1:-1])


def exactly(case: Case, t: Text, context: int, new: int, kind: str) -> tuple[F64, F64]:
    """[new, heads, D] in float64, and what a kernel may be off by before it rounds its result."""
    group, rows = case.queries // case.keys, range(context - new, context)
    value = np.zeros((new, case.queries, case.width))
    error = np.zeros_like(value)
    for row in rows:
        seen = t.lists[row][t.lists[row] >= 0]
        for head in range(case.queries):
            q, k, v = (
                a.astype(np.float64) for a in (t.q[row, head], t.k[seen, head // group], t.v[seen, head // group])
            )
            scores = k @ q * case.scale
            off = chain_error(case.dim, np.abs(k) @ np.abs(q) * case.scale)
            sink = -np.inf if case.sinks is None else float(case.sinks[head])
            most = max(scores.max(), sink)
            weights = np.exp(scores - most)
            p = weights / (weights.sum() + np.exp(sink - most))
            size = max(np.abs(scores).max(), abs(sink) if np.isfinite(sink) else 0.0)
            magnitude = p @ np.abs(v)
            relative = 2 * (off.max() + 4 * ROUNDOFF["float32"] * size + 4e-7)
            at = row - context + new, head
            value[at], error[at] = p @ v, relative * magnitude + chain_error(len(seen), magnitude)
            if kind == "bfloat16":  # probabilities are rounded, each by its own
                error[at] += np.minimum(magnitude, 4 * np.sqrt(p**2 @ v**2)) * ROUNDOFF["bfloat16"]
    return value, error


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("attention"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_sees_what_was_chosen(dtype: str, kv: str, level: str, case: Case) -> None:
    if level == "scalar" and case.count > 500:
        pytest.skip("long lists are walked by the same code as short ones")
    types = dtype, kv
    texts = [text(case, context, types, i) for i, (context, _) in enumerate(case.spans)]
    ours = attend(case, texts, case.spans, types, level, block_size=case.block_size)
    kind = "bfloat16" if types == ("bfloat16", "bfloat16") else "float32"
    exact = [exactly(case, t, *span, kind) for t, span in zip(texts, case.spans, strict=True)]
    value, error = (np.concatenate(arrays) for arrays in zip(*exact, strict=True))
    at_most = {"float32": 5e-4, "float16": 2e-3, "bfloat16": 3e-2}[dtype]
    assert_close(decode(np.concatenate(ours), dtype), value, error, dtype, at_most)


@pytest.mark.parametrize(("dtype", "kv", "level"), of_every_level("attention"))
@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=str)
def test_bits_depend_on_the_sequence_alone(dtype: str, kv: str, level: str, case: Case) -> None:
    """Whole, in parts, beside others, by several threads, of rows that leave; as if all were seen, where all are."""
    types, context = (dtype, kv), 90
    t, other = text(case, context, types, 0), text(case, 60, types, 1)
    (whole,) = attend(case, [t], [(context, context)], types, level)
    for end, new, block_size, threads in ((90, 90, 8, 3), (90, 1, 32, 1), (60, 17, 16, 2), (case.count, 5, 8, 1)):
        spans = [(60, 1), (end, new), (case.count - 1, 3)]
        place = {"block_size": block_size, "threads": threads, "seed": end}
        got = attend(case, [other, t, other], spans, types, level, **place)[1]
        assert_same_bits(got, whole[end - new : end], f"{new} rows to {end}, blocks of {block_size}")
    (leaving,) = attend(case, [t, other], [(context, 50), (60, 20)], types, level, leaving=[69, 49, 3, 50])
    (others,) = attend(case, [other], [(60, 60)], types, level)
    assert_same_bits(leaving, np.stack([others[59], whole[89], whole[43], others[40]]), "rows that leave")
    (plain,) = attend(case, [t], [(case.count, case.count)], types, level, lists=False)
    assert_same_bits(whole[: case.count], plain, "rows that see all")
