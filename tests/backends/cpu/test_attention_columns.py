"""Attention with what rows and positions add to scores by distance, at every level and type: against numpy float64; and
the same bits of a sequence whatever is beside it, and of rows that leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import LEVELS, isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.backends.reference.attention import added_by_columns, one_sequence
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_kv
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.distance_columns import distance_columns
from albireo.graph.node import Graph
from albireo.graph.program_checks import check_program
from backends.cpu.attention_texts import VARIANTS, Case, Text, Types, text
from backends.cpu.harness import F32, Array, Call, Guarded, KVShape, assert_same_bits, cache_of, decode, pool, run
from backends.cpu.test_pack import Weights
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
    has_keys: bool = True,
) -> list[Array]:
    """Of whole sequences; of leaving rows what there is of all of them.

    Args: case: with a window and a cap where it says so; causal where it is not both ways. seeds: of what is added in
    each. has_keys: whether positions add something, too.
    """
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
        "both_ways": int(case.both_ways),
        "window": case.window or 0,
        "softcap": case.softcap or 0.0,
        "from_rows": Guarded(from_rows, "float32"),
        "columns": columns.ctypes.data,
        "num_columns": NUM_COLUMNS,
        "reach": REACH,
        "row_stride": from_rows.shape[1],
        "x_dtype": types.compute,
        "out_dtype": types.compute,
    }
    args |= {"from_keys": Guarded(from_keys, "float32"), "key_stride": from_keys.shape[1]} if has_keys else {}
    args |= {"rows": "S", "gather": 1} if leaving else {}
    run([Call("attention", level, types.compute, args | cache.shape.args)], step, 1)
    assert not np.isnan(out.values).any()
    stored = out.stored.reshape(-1, case.queries, case.dim)
    return [stored] if leaving else np.split(stored, step.query_start[1:-1])


def exactly(case: Case, t: Text, types: Types, seed: int, has_keys: bool = True) -> NDArray[np.float64]:
    n = len(t.q)
    from_rows, from_keys = (each.astype(np.float64) for each in added(case, n, seed))
    at = np.arange(n)
    column = np.array(distance_columns(NUM_COLUMNS, REACH))[np.clip(at[:, None] - at, -REACH, REACH) + REACH]
    out = np.empty((n, case.queries, case.dim))
    for head in range(case.queries):
        of_keys = head * case.keys // case.queries
        k, v = (round_kv(each, types.kv)[:, of_keys].astype(np.float64) for each in (t.k, t.v))
        scores = t.q[:, head].astype(np.float64) @ k.T
        scores = scores + from_rows[at[:, None], head, column]
        if has_keys:
            scores = scores + from_keys[at[None, :], head, column]
        scores = case.scale * scores
        if case.softcap:
            scores = case.softcap * np.tanh(scores / case.softcap)
        away = at[:, None] - at
        seen = away < (case.window or n)
        seen &= away > -(case.window or n) if case.both_ways else away >= 0
        scores = np.where(seen, scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, head] = p / p.sum(axis=-1, keepdims=True) @ v
    return out


@pytest.mark.parametrize("has_keys", [True, False], ids=["rows and keys", "rows"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_what_is_added_by_columns(types: Types, level: str, shape: tuple[int, int, int], has_keys: bool) -> None:
    """Of sequences shorter and longer than a tile of 128 positions and than the distances that are told apart."""
    lengths = (70, 5) if level == "scalar" else (300, 5, 128)
    case = Case(*shape, tuple((n, n) for n in lengths), both_ways=True)
    texts = [text(case, n, types, i) for i, n in enumerate(lengths)]
    ours = attend(case, texts, types, level, 16, has_keys=has_keys)
    for i, (got, t) in enumerate(zip(ours, texts, strict=True)):
        exact = exactly(case, t, types, i, has_keys)
        allowed = types.at_most * np.abs(t.v).max() / 2
        assert np.abs(decode(got, types.compute) - exact).max() < allowed
        (alone,) = attend(case, [t], types, level, 8, seeds=[i], has_keys=has_keys)
        assert_same_bits(alone, got, f"sequence {i} alone, in other blocks")
    leaving = [0, lengths[0] - 1, lengths[0], sum(lengths) - 1]
    (got,) = attend(case, texts, types, level, 16, leaving, has_keys=has_keys)
    assert_same_bits(got, np.concatenate(ours)[leaving], "rows that leave")


@pytest.mark.parametrize("seen", [{"window": 9}, {"window": 20, "both_ways": True}, {}], ids=str)
@pytest.mark.parametrize(("types", "level"), VARIANTS, ids=str)
def test_what_is_added_is_capped_too(types: Types, level: str, seen: dict[str, int]) -> None:
    """Of rows that see what is before them, and of those that see both ways; near ones alone, or all."""
    lengths = (70, 5) if level == "scalar" else (300, 5, 128)
    case = Case(*SHAPES[1], tuple((n, n) for n in lengths), softcap=1.5, **seen)
    texts = [text(case, n, types, i) for i, n in enumerate(lengths)]
    ours = attend(case, texts, types, level, 16, has_keys=False)
    for i, (got, t) in enumerate(zip(ours, texts, strict=True)):
        allowed = types.at_most * np.abs(t.v).max() / 2
        assert np.abs(decode(got, types.compute) - exactly(case, t, types, i, False)).max() < allowed
        (alone,) = attend(case, [t], types, level, 8, seeds=[i], has_keys=False)
        assert_same_bits(alone, got, f"sequence {i} alone, in other blocks")


@pytest.mark.parametrize("has_keys", [True, False], ids=["rows and keys", "rows"])
def test_the_reference_adds_the_same(has_keys: bool) -> None:
    """Also of rows in pieces, where positions add nothing."""
    types, at = Types("float32", "float32"), np.arange(90, dtype=np.int32)
    for case in (Case(4, 2, 20, ((90, 90),), both_ways=True), Case(4, 2, 20, ((90, 90),), window=7, softcap=1.5)):
        t, (from_rows, from_keys) = text(case, 90, types, 0), added(case, 90, 0)
        attrs = {"num_heads": 4, "num_kv_heads": 2, "scale": case.scale, "window": case.window or None}
        attrs |= {"softcap": case.softcap or None, "reach": REACH, "both_ways": case.both_ways}
        attrs |= {"head_dim": t.q.shape[-1]}
        keys = from_keys.reshape(90, -1) if has_keys and case.both_ways else None
        found = []
        for part in (at,) if case.both_ways else (at[:50], at[50:]):
            by_columns = added_by_columns(from_rows[part].reshape(len(part), -1), keys, attrs, part, 90)
            found.append(one_sequence(t.q[part], t.k, t.v, part, attrs, added=by_columns))
        assert np.abs(np.concatenate(found) - exactly(case, t, types, 0, keys is not None)).max() < 1e-5


HEADS, DIM, MOST, BLOCKS = 3, 12, 200, 30
ATTRS = {"layer": 0, "num_heads": HEADS, "num_kv_heads": HEADS, "head_dim": DIM, "scale": 0.3, "window": None}


def graph() -> Graph:
    """Of rows that are q, k and v, and of what each row has by distance, each distance its own."""
    b, width = GraphBuilder(), HEADS * DIM
    given, near = b.given(3 * width, 0), b.given(HEADS * 2 * MOST, 1)
    q, k, v = b.split(given, (width,) * 3)
    b.kv_write(k, v, 0, HEADS, DIM)
    a = b.attention(b.cast(q, "float32"), by_columns=(near,), softcap=None, both_ways=True, reach=MOST, **ATTRS)
    return b.finish(hidden=b.gather_rows(a, b.logit_rows))


def step(count: int) -> StepInputs:
    rng = np.random.default_rng(count)
    given = rng.standard_normal((count, 3 * HEADS * DIM), np.float32)
    near = rng.standard_normal((count, HEADS * 2 * MOST), np.float32)
    made = make_step([Work([0] * count, 0, list(range(-(-count // 8))))], 8, "all", "none")
    return replace(made, given=(given, near))


def by_torch(given: F32, near: F32) -> NDArray[np.float64]:
    torch = pytest.importorskip("torch")
    count = len(given)
    q, k, v = torch.tensor(given).double().reshape(count, 3, HEADS, DIM).permute(1, 2, 0, 3)
    away = torch.arange(count)[:, None] - torch.arange(count)[None, :] + MOST
    added = torch.tensor(near).double().reshape(count, HEADS, -1).transpose(0, 1).gather(2, away.expand(HEADS, -1, -1))
    a = ((q @ k.transpose(1, 2) + added) * ATTRS["scale"]).softmax(-1) @ v
    return np.asarray(a.transpose(0, 1).reshape(count, -1))


@pytest.mark.parametrize("level", isa_levels())
def test_programs_of_rows_alone(level: str) -> None:
    """Of one row, of few, of more than a tile, and of as many as there may be; by the interpreter, too."""
    maxima = {"T": MOST, "R": MOST, "G": 1}
    catalog = CpuCatalog(LEVELS[LEVELS.index(level) :])
    program = compile_graph(graph(), catalog, maxima=maxima, block_size=8, max_positions=MOST)
    ours = CpuModel(program, Weights({}), pool(1), BLOCKS)
    for count in (1, 3, 129, MOST):
        of_step = step(count)
        wanted = by_torch(*of_step.given)
        np.testing.assert_allclose(ours.run(of_step).hidden, wanted, rtol=2e-5, atol=2e-5)
        told = interpret(graph(), of_step, {}, ReferenceKV(BLOCKS, 8)).outputs["hidden"]
        np.testing.assert_allclose(told, wanted, rtol=2e-6, atol=2e-6)


def test_programs_are_held_to_what_is_added() -> None:
    program = compile_graph(graph(), CpuCatalog(isa_levels()), maxima={"T": 8, "R": 8, "G": 1}, block_size=8,
                            max_positions=8)  # fmt: skip
    check_program(program)
    (call,) = (each for each in program.calls if each.family == "attention")
    args, attrs = dict(call.args), dict(call.attrs)
    without = {key: value for key, value in args.items() if key != "from_rows"}
    for damaged in (
        replace(call, args=without | {"from_keys": args["from_rows"]}),
        replace(call, args=without),
        replace(call, args=args | {"from_keys": args["q"]}),
        replace(call, attrs=attrs | {"reach": MOST - 1}),
    ):
        calls = tuple(damaged if each is call else each for each in program.calls)
        with pytest.raises(InvariantError, match=r"from_rows and reach come together|do not fit q and reach"):
            check_program(replace(program, calls=calls))


def test_what_does_not_fit_is_refused() -> None:
    b = GraphBuilder()
    q, near, odd = b.given(HEADS * DIM, 0), b.given(HEADS * 32, 1), b.given(HEADS * 31, 2)
    fits = ATTRS | {"softcap": None, "both_ways": True, "reach": 16}
    b.attention(q, by_columns=(near,), **fits)
    b.attention(q, by_columns=(near,), **(fits | {"softcap": 30.0, "both_ways": False, "window": 9}))
    for by_columns, changed, told in (
        ((odd,), {}, "wanted an even number of columns"),
        ((near, odd), {}, "wanted an even number of columns"),
        ((near,), {"reach": 15}, "more columns than distances"),
        ((near,), {"slopes": (0.5,) * HEADS}, "there is slopes"),
        ((near, near), {"both_ways": False}, "for rows that see both ways"),
        (None, {}, "wanted from_rows and reach"),
    ):
        with pytest.raises(InvariantError, match=told):
            b.attention(q, by_columns=by_columns, **(fits | changed))


@pytest.mark.parametrize(("num_columns", "reach"), [(512, 512), (16, 40), (64, 32), (100, 1000)])
def test_columns_are_those_of_transformers(num_columns: int, reach: int) -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    away, span = torch.arange(-reach - 30, reach + 31), num_columns // 2
    theirs = away if reach == span else modeling.make_log_bucket_position(away, span, reach)
    wanted = torch.clamp(theirs.long() + span, 0, num_columns - 1).tolist()
    ours = distance_columns(num_columns, reach)
    assert [ours[max(-reach, min(reach, each)) + reach] for each in away.tolist()] == wanted
