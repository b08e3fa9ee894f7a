"""Attention with what rows and positions add to scores by distance, at every level and type: against numpy float64; and
the same bits of a sequence whatever is beside it, and of rows that leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.reference.attention import added_by_columns, one_sequence
from albireo.backends.reference.rounding import round_kv
from albireo.graph.distance_columns import distance_columns
from backends.cpu.harness import F32, Array, Call, Guarded, KVShape, assert_same_bits, cache_of, decode, run
from backends.cpu.test_attention import VARIANTS, Case, Text, Types, text
from step_batches import Work, make_step

#: Heads, heads of keys, channels; each with columns of its own.
SHAPES = [(2, 2, 64), (4, 2, 20)]
NUM_COLUMNS, REACH = 16, 40
GAP = 3  # floats between rows of what is added


def added(case: Case, length: int, seed: int) -> tuple[F32, F32]:
    """from_rows, from_keys: [length, heads, columns]."""
    rng = np.random.default_rng(seed + 50)
    shape = (length, case.queries, NUM_COLUMNS)
    return rng.standard_normal(shape, np.float32) * 2, rng.standard_normal(shape, np.float32) * 2


def attend(
    case: Case,
    texts: Sequence[Text],
    types: Types,
    level: str,
    block_size: int,
    leaving: Sequence[int] = (),
    seeds: Sequence[int] | None = None,
) -> list[Array]:
    """Of whole sequences; of leaving rows what there is of all of them. Args: seeds: of what is added in each."""
    lengths = [len(t.q) for t in texts]
    blocks = [-(-n // block_size) for n in lengths]
    tables = np.split(np.random.default_rng(block_size).permutation(sum(blocks) + 2), np.cumsum(blocks))[:-1]
    step = make_step([Work([0] * n, 0, table.tolist()) for n, table in zip(lengths, tables, strict=True)], block_size)
    if leaving:
        none = np.zeros(0, np.int32)
        step = replace(step, logit_rows=np.array(leaving, np.int32), top_rows=none, top_counts=none)
    cache = cache_of(KVShape(types.kv, case.keys, case.dim, block_size, True), sum(blocks) + 2)
    slots = [
        table[np.arange(n) // block_size] * block_size + np.arange(n) % block_size
        for n, table in zip(lengths, tables, strict=True)
    ]
    k, v = (np.concatenate(parts) for parts in ([t.k for t in texts], [t.v for t in texts]))
    cache.fill(np.concatenate(slots), k, v)
    q = np.concatenate([t.q for t in texts])
    from_rows, from_keys = (
        np.pad(np.concatenate(each).reshape(len(q), -1), ((0, 0), (0, GAP)))
        for each in zip(
            *(added(case, n, i) for i, n in zip(seeds or range(len(texts)), lengths, strict=True)), strict=True
        )
    )
    columns = np.array(distance_columns(NUM_COLUMNS, REACH), np.int32)
    out = Guarded.poisoned((len(leaving) or len(q), case.queries * case.dim), types.compute)
    args = {
        "x": Guarded(q.reshape(len(q), -1), types.compute),
        "out": out,
        "kv": cache.memory,
        "num_heads": case.queries,
        "scale": case.scale,
        "both_ways": 1,
        "from_rows": Guarded(from_rows, "float32"),
        "from_keys": Guarded(from_keys, "float32"),
        "columns": columns.ctypes.data,
        "num_columns": NUM_COLUMNS,
        "reach": REACH,
        "row_stride": from_rows.shape[1],
        "key_stride": from_keys.shape[1],
        "x_dtype": types.compute,
        "out_dtype": types.compute,
    }
    args |= {"rows": "S", "gather": 1} if leaving else {}
    run([Call("attention", level, types.compute, args | cache.shape.args)], step, 1)
    assert not np.isnan(out.values).any()
    stored = out.stored.reshape(-1, case.queries, case.dim)
    return [stored] if leaving else np.split(stored, step.query_start[1:-1])


def exactly(case: Case, t: Text, types: Types, seed: int) -> NDArray[np.float64]:
    n = len(t.q)
    from_rows, from_keys = (each.astype(np.float64) for each in added(case, n, seed))
    at = np.arange(n)
    column = np.array(distance_columns(NUM_COLUMNS, REACH))[np.clip(at[:, None] - at, -REACH, REACH) + REACH]
    out = np.empty((n, case.queries, case.dim))
    for head in range(case.queries):
        of_keys = head * case.keys // case.queries
        k, v = (round_kv(each, types.kv)[:, of_keys].astype(np.float64) for each in (t.k, t.v))
        scores = t.q[:, head].astype(np.float64) @ k.T
        scores = scores + from_rows[at[:, None], head, column] + from_keys[at[None, :], head, column]
        p = np.exp(case.scale * (scores - scores.max(axis=-1, keepdims=True)))
        out[:, head] = p / p.sum(axis=-1, keepdims=True) @ v
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_what_is_added_by_columns(types: Types, level: str, shape: tuple[int, int, int]) -> None:
    """Of sequences shorter and longer than a tile of 128 positions and than the distances that are told apart."""
    lengths = (70, 5) if level == "scalar" else (300, 5, 128)
    case = Case(*shape, tuple((n, n) for n in lengths), both_ways=True)
    texts = [text(case, n, types, i) for i, n in enumerate(lengths)]
    ours = attend(case, texts, types, level, 16)
    for i, (got, t) in enumerate(zip(ours, texts, strict=True)):
        exact = exactly(case, t, types, i)
        allowed = types.at_most * np.abs(t.v).max() / 2
        assert np.abs(decode(got, types.compute) - exact).max() < allowed
        (alone,) = attend(case, [t], types, level, 8, seeds=[i])
        assert_same_bits(alone, got, f"sequence {i} alone, in other blocks")
    leaving = [0, lengths[0] - 1, lengths[0], sum(lengths) - 1]
    (got,) = attend(case, texts, types, level, 16, leaving)
    assert_same_bits(got, np.concatenate(ours)[leaving], "rows that leave")


def test_the_reference_adds_the_same() -> None:
    case, types = Case(4, 2, 20, ((90, 90),), both_ways=True), Types("float32", "float32")
    t, (from_rows, from_keys) = text(case, 90, types, 0), added(case, 90, 0)
    attrs = {"num_heads": 4, "num_kv_heads": 2, "scale": case.scale, "window": None, "softcap": None, "reach": REACH}
    by_columns = added_by_columns(from_rows.reshape(90, -1), from_keys.reshape(90, -1), attrs)
    ours = one_sequence(t.q, t.k, t.v, np.arange(90, dtype=np.int32), attrs | {"both_ways": True}, added=by_columns)
    assert np.abs(ours - exactly(case, t, types, 0)).max() < 1e-5


@pytest.mark.parametrize(("num_columns", "reach"), [(512, 512), (16, 40), (64, 32), (100, 1000)])
def test_columns_are_those_of_transformers(num_columns: int, reach: int) -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    away, span = torch.arange(-reach - 30, reach + 31), num_columns // 2
    theirs = away if reach == span else modeling.make_log_bucket_position(away, span, reach)
    wanted = torch.clamp(theirs.long() + span, 0, num_columns - 1).tolist()
    ours = distance_columns(num_columns, reach)
    assert [ours[max(-reach, min(reach, each)) + reach] for each in away.tolist()] == wanted
