"""Texts that attend on the CPU: heads and what they see, in which cache, and in numpy what comes of it.

Used by the tests of attention. Every slot of the cache that a sequence has not written holds NaN, those of its own
blocks included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.rounding import round_kv, round_to
from albireo.dtypes import KV_CODES
from backends.cpu.harness import (
    F32,
    F64,
    ROUNDOFF,
    Array,
    Call,
    Guarded,
    KVShape,
    cache_of,
    chain_error,
    run,
    variants,
)
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
