"""attention at every level and type: against numpy float64, and bit by bit against itself.

Every slot of the cache that a sequence has not written holds NaN, those of its own blocks included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.reference.rounding import round_kv, round_to
from albireo.dtypes import KV_CODES
from backends.cpu.harness import (
    F32,
    F64,
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
    chain_error,
    decode,
    normal,
    run,
    variants,
)
from in_turn import one_in
from step_batches import Work, make_step


@dataclass(frozen=True)
class Types:
    """What queries and results are, and what the cache holds."""

    compute: str
    kv: str

    def __str__(self) -> str:
        return self.compute if self.compute == self.kv else f"{self.compute}-{self.kv}"

    @property
    def at_most(self) -> float:
        """With whole numbers the worst that the rounding of a query may do is allowed."""
        return max(AT_MOST[self.compute], 1.5e-2 if self.kv == "int8" else 0.0)

    @property
    def rounds_weights(self) -> bool:
        """Whether a kernel may round probabilities to bfloat16."""
        return self.compute == "bfloat16" and self.kv in ("bfloat16", "fp8")


#: Caches of another type than the queries, in which each of both appears.
_MIXED = {"bfloat16": ("int8", "fp8", "float32"), "float32": ("int8", "bfloat16"), "float16": ("fp8",)}
TYPES = [Types(dtype, kv) for dtype, others in _MIXED.items() for kv in (dtype, *others)]
VARIANTS = [(types, level) for dtype, level in variants("attention") for types in TYPES if types.compute == dtype]
Spans = Sequence[tuple[int, int]]
U = ROUNDOFF["float32"]
#: Averaging makes the result smaller than its terms; so the tolerance weighs more than elsewhere.
AT_MOST = {"float32": 5e-4, "float16": 2e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Case:
    """Heads and what they see. spans: (context, how many of its last tokens are computed) of each sequence."""

    queries: int
    keys: int
    dim: int
    spans: tuple[tuple[int, int], ...]
    block_size: int = 16
    window: int = 0
    softcap: float = 0.0
    has_sinks: bool = False
    value_dim: int = 0  # values are so many channels of keys, and the cache has keys alone
    both_ways: bool = False  # rows see what comes behind them, too
    reach: int = 0  # what is added to scores depends on distances of less than so many
    first_key: int = 0  # no row sees a position before it
    num_keys: int = 0  # all rows see the first so many, and no other
    result_dim: int = 0  # of values so many channels are given
    in_chunks: bool = False  # rows see the chunk of window positions that they are in
    falls: bool = False  # scores fall with distance, of each head by its own slope

    @property
    def width(self) -> int:
        return self.value_dim or self.result_dim or self.dim

    @property
    def scale(self) -> float:
        return float(np.float32(2 / self.dim**0.5))

    @property
    def distances(self) -> F32 | None:
        """[2 * reach + 1, heads]"""
        if not self.reach:
            return None
        return np.random.default_rng(9).standard_normal((2 * self.reach + 1, self.queries), np.float32) * 3

    @property
    def slopes(self) -> F32 | None:
        """[heads], from next to nothing to what leaves a few positions."""
        return 2.0 ** -np.linspace(0.5, 8, self.queries, dtype=np.float32) if self.falls else None

    @property
    def sinks(self) -> F32 | None:
        """Below the scores, among them, far above."""
        return np.linspace(-3, 12, self.queries, dtype=np.float32) if self.has_sinks else None

    def __str__(self) -> str:
        spans = " ".join(f"{c}-{n}" for c, n in self.spans[:3])
        numbers = f"b{self.block_size} w{self.window} c{self.softcap:g}{' sinks' * self.has_sinks}"
        numbers += f" v{self.value_dim}" if self.value_dim else ""
        numbers += " both" * self.both_ways + (f" r{self.reach}" if self.reach else "")
        numbers += (f" from{self.first_key}" if self.first_key else "") + (
            f" k{self.num_keys}" if self.num_keys else ""
        )
        numbers += " falls" * self.falls + " chunks" * self.in_chunks + f" of{self.result_dim}" * (self.result_dim > 0)
        return f"{self.queries}/{self.keys}x{self.dim} {numbers} {spans}"


#: Contexts around pairs, blocks of every size, sub-panels and tiles; decode and prefill side by side.
SHORT = tuple((n, 1) for n in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129))
MIXED = ((5, 5), (70, 1), (64, 64), (97, 30), (33, 2), (130, 13))
WHOLE = tuple((n, n) for n in (1, 2, 17, 64, 127, 128, 129, 200))
LONG = ((1023, 1), (1024, 2), (1025, 3), (1088, 1), (2049, 2))
#: A sound and a text in one sequence: the text sees the text, and all of the sound.
AFTER = ((1510, 1), (1501, 1), (1600, 100), (1537, 2), (1948, 3))
SPEECH = [
    Case(2, 2, 64, AFTER, 16, first_key=1500),
    Case(2, 2, 64, AFTER, 16, num_keys=1500),
    Case(4, 2, 20, ((70, 1), (97, 30), (51, 1), (180, 130)), 8, first_key=50),
    Case(4, 2, 20, ((70, 1), (97, 30), (51, 1), (180, 130)), 8, num_keys=50),
    Case(3, 1, 16, ((300, 40), (129, 1)), 32, window=60, first_key=128),
    Case(2, 1, 8, ((1100, 70), (1026, 2)), 16, softcap=3.0, has_sinks=True, num_keys=1024),
    Case(2, 1, 8, ((140, 12),), 16, num_keys=1),
]
FAST_CASES = [
    Case(4, 4, 8, SHORT, 8),
    Case(2, 2, 64, SHORT, 16),
    Case(2, 1, 20, SHORT, 32),
    Case(8, 1, 64, MIXED, 16),
    Case(6, 2, 20, MIXED, 8),
    Case(3, 1, 80, MIXED, 32),
    Case(10, 2, 96, MIXED, 16),
    Case(4, 1, 128, MIXED, 8),
    Case(2, 2, 256, MIXED, 16),
    Case(7, 1, 8, ((49, 49), (14, 14)), 16),
    Case(14, 2, 64, LONG, 16),
    Case(2, 1, 8, LONG, 8),
    Case(4, 1, 16, ((1100, 100), (2100, 60)), 32),
    Case(4, 2, 8, MIXED, 16, window=1),
    Case(4, 2, 20, MIXED, 8, window=9),
    Case(4, 2, 64, MIXED, 32, window=65),
    Case(4, 2, 20, MIXED, 8, window=33, in_chunks=True),
    Case(4, 2, 24, MIXED, 16, has_sinks=True, result_dim=16),
    Case(2, 1, 40, MIXED, 8, window=33, result_dim=27),
    Case(2, 1, 16, ((1100, 100), (2049, 3), (40, 40), (1024, 1)), 16, window=1024, has_sinks=True, in_chunks=True),
    Case(2, 1, 8, LONG, 16, window=1000),
    Case(2, 1, 8, ((1100, 100), (2100, 60)), 8, window=1030),
    Case(2, 1, 16, ((1100, 100), (1025, 1)), 16, window=40),
    Case(4, 2, 64, MIXED, 16, softcap=3.0),
    Case(2, 1, 8, LONG, 16, window=1020, softcap=5.0),
    Case(16, 2, 64, MIXED, 16, window=33, has_sinks=True),
    Case(6, 2, 8, LONG, 16, has_sinks=True),
    Case(4, 2, 20, WHOLE, 8, both_ways=True),
    Case(3, 3, 64, WHOLE, 16, both_ways=True),
    Case(2, 1, 8, ((1100, 1100), (5, 5)), 32, both_ways=True),
    Case(3, 3, 64, WHOLE, 16, window=1, both_ways=True),
    Case(4, 2, 16, WHOLE, 8, window=65, both_ways=True),
    Case(2, 1, 8, ((1100, 1100), (1026, 1026)), 16, window=30, both_ways=True),
    Case(2, 1, 8, ((1100, 300),), 16, window=600, softcap=3.0, both_ways=True),
    Case(4, 2, 20, MIXED, 16, has_sinks=True, both_ways=True),
    Case(3, 3, 64, WHOLE, 16, both_ways=True, reach=128),
    Case(2, 1, 20, ((1100, 1100), (5, 5)), 16, both_ways=True, reach=7),
    Case(4, 1, 16, MIXED, 8, window=30, has_sinks=True, reach=20),
    *SPEECH,
    Case(4, 4, 64, MIXED, 16, falls=True),
    Case(6, 6, 20, LONG, 8, falls=True),
    Case(4, 2, 8, ((1100, 100), (2100, 60)), 32, window=300, has_sinks=True, falls=True),
]
#: Of caches without values, which are not of codes.
LATENT_CASES = [
    Case(4, 1, 32, SHORT, 8, value_dim=24),
    Case(5, 1, 40, MIXED, 16, value_dim=40),
    Case(50, 1, 36, MIXED, 32, value_dim=2),
    Case(16, 1, 288, ((70, 3), (17, 17)), 16, value_dim=256),
    Case(4, 2, 18, LONG, 8, window=1000, value_dim=16),
    Case(3, 1, 80, MIXED, 16, softcap=3.0, has_sinks=True, value_dim=66),
]
SLOW_CASES = [
    Case(4, 2, 8, SHORT, 8),
    Case(6, 2, 20, MIXED[:4], 16),
    Case(2, 1, 8, LONG, 32, window=1020, softcap=3.0),
    Case(4, 2, 8, MIXED[:4], 16, window=9, has_sinks=True),
    Case(2, 1, 8, WHOLE[:6], 16, both_ways=True),
    Case(2, 1, 8, WHOLE[:6], 16, window=20, both_ways=True),
    Case(4, 2, 8, WHOLE[:6], 16, both_ways=True, reach=11),
    *SPEECH[2:5],
    Case(4, 2, 8, MIXED[:4], 16, falls=True),
]


def drawn(seed: int) -> Case:
    """Any shape, from a seed."""
    rng = np.random.default_rng(seed)
    keys, group = rng.integers(1, 4), rng.integers(1, 9)
    contexts = rng.integers(1, 260, rng.integers(1, 5)).tolist()
    spans = tuple((context, int(rng.integers(1, min(context, 60) + 1))) for context in contexts)
    window = int(rng.integers(1, 200)) if rng.random() < 0.4 else 0
    return Case(int(keys * group), int(keys), int(rng.integers(1, 70) * 2), spans, int(rng.choice([8, 16, 32])), window)


DRAWN = [drawn(seed) for seed in range(15)]
SLOW_CASES += [drawn(0)]
#: Numbers of one type, in the order in which drawn cases are of them.
SAME_TYPE = ("bfloat16", "float32", "float16")
#: Which have loops of their own. Others are these but for what is loaded or stored: cases are theirs in turn.
UNLIKE = (*(Types(dtype, dtype) for dtype in SAME_TYPE[:2]), Types("bfloat16", "int8"), Types("bfloat16", "fp8"))
BOTH_WAYS = [case for case in FAST_CASES if case.both_ways]
#: For a cache of another type than the queries: every head size and block size, a window, a cap, rows both ways.
MIXED_CASES = [
    *FAST_CASES[:12],
    FAST_CASES[14],
    Case(4, 2, 12, MIXED, 16, window=40),
    *FAST_CASES[20:22],
    *BOTH_WAYS[:6:3],
    *SPEECH[:5],
    *(case for case in FAST_CASES if case.falls),
]


def cases_of(types: Types, level: str) -> list[Case]:
    latent = [] if types.kv in KV_CODES else LATENT_CASES
    if level == "scalar":
        slow = SLOW_CASES if types.compute == types.kv else SLOW_CASES[TYPES.index(types) % 2 :: 2]
        return [*slow, *latent[:2]]
    if types.compute == types.kv:
        turn = SAME_TYPE.index(types.compute)
        named = [*FAST_CASES, *latent][:: 3 if types.compute == "float16" else 1]
        return [*named, *DRAWN[turn::3]]
    every = 3 if types.compute != "bfloat16" else 2 if types.kv == "float32" else 1
    return [*MIXED_CASES[::every], *latent[1:2]]


CASES = [(*v, case) for v in VARIANTS for case in cases_of(*v)]


@dataclass
class Text:
    """Queries, keys and values [n, heads, D] of one sequence of n tokens; keys and values not yet as a cache of codes
    holds them."""

    q: F32
    k: F32
    v: F32


def text(case: Case, length: int, types: Types, seed: int) -> Text:
    rng = np.random.default_rng(seed)
    shapes = ((length, case.queries, case.dim), *2 * ((length, case.keys, case.dim),))
    kinds = (types.compute, *2 * ("float32" if types.kv in KV_CODES else types.kv,))
    drawn = Text(
        *(round_to(rng.standard_normal(shape, np.float32), kind) for shape, kind in zip(shapes, kinds, strict=True))
    )
    return replace(drawn, v=drawn.k[..., : case.value_dim]) if case.value_dim else drawn


@dataclass(frozen=True)
class Placement:
    """Where sequences lie in a cache, and how many threads compute. seed: of the order of the blocks."""

    block_size: int = 16
    seed: int = 0
    threads: int = 1


def attend(
    case: Case,
    texts: Sequence[Text],
    spans: Spans,
    types: Types,
    level: str,
    place: Placement,
    *,
    is_damaged: bool = False,
    leaving: Sequence[int] = (),
    picks: bool = True,
    ends: NDArray[np.int32] | None = None,
    is_causal: bool = False,
) -> list[Array]:
    """Run one step; the cache holds spans[i][0] tokens of sequence i, the last spans[i][1] of them are computed.

    Args: leaving: rows of the step that are computed alone; none: all are. picks: the kernel is given all queries.
        ends: see StepInputs.row_ends; is_causal: the kernel does not ask for them.
    Returns: what is stored for each sequence, [new, heads, D] as dtype is stored; of rows that leave, for all of them.
    """
    blocks = [-(-context // place.block_size) for context, _ in spans]
    num_blocks = sum(blocks) + 3
    free = np.random.default_rng(place.seed).permutation(num_blocks)
    tables = np.split(free, np.cumsum(blocks))[:-1]
    work = [Work([0] * new, context - new, table.tolist()) for (context, new), table in zip(spans, tables, strict=True)]
    step = make_step(work, place.block_size)
    if leaving:
        rows, none = np.array(leaving, np.int32), np.zeros(0, np.int32)
        step = replace(step, logit_rows=rows, top_rows=none, top_counts=none)
    step = replace(step, row_ends=ends)
    step.check(place.block_size)
    cache = cache_of(KVShape(types.kv, case.keys, case.dim, place.block_size, not case.value_dim), num_blocks)
    size, slots = place.block_size, []
    for (context, _), table in zip(spans, tables, strict=True):
        at = np.arange(context)
        slots.append(table[at // size] * size + at % size)
    lengths = [context for context, _ in spans]
    k, v = (
        np.concatenate([every[:length] for every, length in zip(parts, lengths, strict=True)])
        for parts in ([t.k for t in texts], [t.v for t in texts])
    )
    cache.fill(np.concatenate(slots), k, v)
    q = np.concatenate([t.q[context - new : context] for t, (context, new) in zip(texts, spans, strict=True)])
    if leaving and not picks:
        q = q[rows]
    out = Guarded.poisoned((len(leaving) or len(q), case.queries * case.width), types.compute)
    args = {
        "x": Guarded(q.reshape(len(q), -1), types.compute),
        "out": out,
        "kv": cache.memory,
        "num_heads": case.queries,
        "value_dim": case.value_dim,
        "both_ways": -1 if is_causal else int(case.both_ways),
        "first_key": case.first_key,
        "num_keys": case.num_keys,
        "in_chunks": int(case.in_chunks),
        "result_dim": case.result_dim,
    }
    args |= {
        "window": case.window,
        "scale": case.scale,
        "softcap": case.softcap,
        "x_dtype": types.compute,
        "out_dtype": types.compute,
    }
    if leaving:
        args |= {"rows": "S", "gather": int(picks)}
    if case.sinks is not None:
        args["sinks"] = Guarded(case.sinks[None])
    if case.distances is not None:
        args |= {"distances": Guarded(case.distances, "float32"), "num_distances": len(case.distances)}
    if case.slopes is not None:
        args["slopes"] = Guarded(case.slopes[None])
    run([Call("attention", level, types.compute, args | cache.shape.args)], step, place.threads)
    cache.memory.check_unchanged()
    assert is_damaged or not np.isnan(out.values).any(), (
        "something that is not of the sequence was read, or nothing was written"
    )
    stored = out.stored.reshape(-1, case.queries, case.width)
    return [stored] if leaving else np.split(stored, step.query_start[1:-1])


def exactly(case: Case, t: Text, context: int, new: int, types: Types) -> tuple[F64, F64]:
    """[new, heads, D] in float64, and what a kernel may be off by before it rounds its result."""
    group = case.queries // case.keys
    q = t.q[context - new : context].astype(np.float64).transpose(1, 0, 2)
    k, v = (
        round_kv(a[:context], types.kv).astype(np.float64).transpose(1, 0, 2).repeat(group, axis=0) for a in (t.k, t.v)
    )
    scores = q @ k.transpose(0, 2, 1) * case.scale
    error = chain_error(case.dim, np.abs(q) @ np.abs(k).transpose(0, 2, 1) * case.scale)
    if types.kv == "int8":  # queries are rounded to whole numbers
        step = np.abs(q).max(axis=-1, keepdims=True) / 32767
        error = error + step / 2 * np.abs(k).sum(axis=-1)[:, None] * case.scale
    if case.softcap:
        scores = case.softcap * np.tanh(scores / case.softcap)
        error = error + 8 * U * case.softcap
    at, now = np.arange(context), np.arange(context - new, context)[:, None]
    if case.distances is not None:
        shift = case.distances.astype(np.float64)[np.clip(at - now, -case.reach, case.reach) + case.reach]
        scores = scores + shift.transpose(2, 0, 1)
    if case.slopes is not None:
        scores = scores + case.slopes.astype(np.float64)[:, None, None] * (at - now)
    seen = (case.both_ways or at <= now) & ((at > now - case.window) if case.window else True)
    if case.in_chunks:
        seen = (at <= now) & (at // case.window == now // case.window)
    if case.both_ways and case.window:
        seen = seen & (at < now + case.window)
    seen = at < case.num_keys if case.num_keys else seen & (at >= case.first_key)
    seen = np.broadcast_to(seen, (new, context))
    scores = np.where(seen, scores, -np.inf)
    sink = np.full((case.queries, 1, 1), -np.inf) if case.sinks is None else case.sinks[:, None, None]
    most = np.maximum(scores.max(axis=-1, keepdims=True), sink)
    weights = np.exp(scores - most)
    p = weights / (weights.sum(axis=-1, keepdims=True) + np.exp(sink - most))
    # The exponential: its argument's error, a rounding of the argument, and 2e-7 of its own, above and below the line.
    size = np.where(seen, np.abs(scores), 0).max(axis=-1, keepdims=True)
    size = np.maximum(size, np.where(np.isfinite(sink), np.abs(sink), 0))
    relative = 2 * (np.where(seen, error, 0).max(axis=-1, keepdims=True) + 4 * U * size + 4e-7)
    magnitude = p @ np.abs(v)
    error = relative * magnitude + chain_error(context, magnitude)
    if types.kv == "int8":  # of exponentials that are good enough for a rounded result
        error += whole_weights(p, v) + 2.1e-4 * magnitude
    elif types.rounds_weights:  # probabilities are rounded, each by its own
        error += np.minimum(magnitude, 4 * np.sqrt(p**2 @ v**2)) * ROUNDOFF["bfloat16"]
    return (p @ v).transpose(1, 0, 2)[..., : case.width], error.transpose(1, 0, 2)[..., : case.width]


def whole_weights(p: F64, v: F64) -> F64:
    """Probabilities times the scales of values are rounded to 32767ths of the largest of a tile, each by its own."""
    error, scales = np.zeros((*p.shape[:2], v.shape[-1])), np.abs(v).max(axis=-1) / 127
    for start in range(0, v.shape[1], 64):
        tile = slice(start, start + 64)
        step = (p[..., tile] * scales[:, None, tile]).max(axis=-1, keepdims=True) / 32767
        codes = v[:, tile] / np.maximum(scales[:, tile, None], 1e-30)
        worst, likely = np.abs(codes).sum(axis=1) / 2, 4 / np.sqrt(12) * np.sqrt((codes**2).sum(axis=1))
        error += step * np.minimum(worst, likely)[:, None]
    return error


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
