"""gather at every level: a copy, so bit by bit; and models with and without the pass that brings it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import last_layer_rows
from albireo.compiler.pipeline import PASSES, Pass, compile_graph
from albireo.graph.program import Program
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from backends.cpu.harness import Call, Guarded, assert_same_bits, hard_to_round, normal, pool, rows_step, run, variants
from backends.cpu.test_norm import norm
from backends.cpu.test_pack import Stored, Weights
from in_turn import in_turn
from representatives import REPRESENTATIVES
from step_batches import Work, make_step
from tiny_models import random_weights

VARIANTS = variants("gather")
OF_T, OF_S = 1, 2
MAXIMA = {"T": 40, "R": 40, "G": 6}
BLOCK_SIZE, NUM_BLOCKS, MAX_POSITIONS = 8, 12, 64


def gathered(x: Guarded, level: str, step: StepInputs, rows: str, source: int, threads: int = 1) -> Guarded:
    width = x.shape[1]
    out = Guarded.poisoned((step.sizes[rows], width), x.dtype)
    args = {"x": x, "out": out, "k": width, "out_dtype": x.dtype, "rows": rows, "gather": source}
    run([Call("gather", level, x.dtype, args)], step, threads)
    out.check_guards()
    return out


@pytest.mark.parametrize("width", [1, 3, 16, 100, 1027])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_rows_are_those_the_step_names(dtype: str, level: str, width: int) -> None:
    x = Guarded(normal(13, width, dtype=dtype), dtype)
    step = rows_step(13, logit_rows=[12, 0, 5], top_rows=[5, 11, 1, 12])
    wanted = {"R": step.logit_rows, "G": step.top_rows, "S": step.out_rows}
    for threads in (1, 3):
        for symbol, rows in wanted.items():
            out = gathered(x, level, step, symbol, OF_T, threads)
            assert_same_bits(out.stored, x.stored[rows], f"{symbol}, {threads} threads")


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_rows_of_those_that_leave(dtype: str, level: str) -> None:
    x = Guarded(normal(7, 33, dtype=dtype), dtype)
    step = rows_step(20, logit_rows=[3, 19, 0], top_rows=[7, 7, 2, 5])
    assert_same_bits(gathered(x, level, step, "R", OF_S).stored, x.stored[:3], "logits")
    assert_same_bits(gathered(x, level, step, "G", OF_S).stored, x.stored[3:], "arg max")


@pytest.mark.parametrize(("logit_rows", "top_rows"), [((), (4, 2)), ((4, 2), ()), ((), ())])
def test_one_kind_of_rows_or_none(logit_rows: Sequence[int], top_rows: Sequence[int]) -> None:
    x, level = Guarded(normal(5, 40)), isa_levels()[-1]
    step = rows_step(5, logit_rows=logit_rows, top_rows=top_rows)
    for symbol, wanted in (("S", [*logit_rows, *top_rows]), ("R", logit_rows), ("G", top_rows)):
        assert_same_bits(gathered(x, level, step, symbol, OF_T).stored, x.stored[list(wanted)], symbol)


@pytest.mark.parametrize("level", [level for dtype, level in VARIANTS if dtype == "float32"])
def test_every_pattern_is_copied_as_it_is(level: str) -> None:
    """Numbers, denormals, infinities and NaN with their payloads."""
    patterns = hard_to_round()
    x = Guarded(patterns[: len(patterns) // 64 * 64].reshape(-1, 64))
    last = x.shape[0] - 1
    rows = np.arange(last, -1, -1)
    out = gathered(x, level, rows_step(last + 1, top_rows=rows), "S", OF_T)
    assert_same_bits(out.stored, x.stored[::-1], "patterns")


@pytest.mark.parametrize(("dtype", "level"), variants("norm"))
def test_a_norm_gathers_as_gather_does(dtype: str, level: str) -> None:
    x, weight = normal(9, 35), normal(35, seed=1)
    whole = norm(x, weight, level, dtype).stored
    rows = {"logit_rows": [8, 0], "top_rows": [3, 3, 7]}
    assert_same_bits(norm_of_s(x, weight, level, dtype, OF_T, rows), whole[[8, 0, 3, 3, 7]], "rows that leave")
    for symbol, wanted in (("R", whole[:2]), ("G", whole[2:5])):
        got = norm(x, weight, level, dtype, rows=symbol, gather=OF_S, **rows)
        assert_same_bits(got.stored, wanted, symbol)


def norm_of_s(x: np.ndarray, weight: np.ndarray, level: str, dtype: str, source: int, rows: dict) -> np.ndarray:
    step = rows_step(len(x), **rows)
    out = Guarded.poisoned((step.sizes["S"], x.shape[1]), dtype)
    args = {"x": Guarded(x), "weight": Guarded(weight), "out": out, "k": x.shape[1], "eps": 1e-5, "out_dtype": dtype}
    run([Call("norm", level, dtype, args | {"rows": "S", "gather": source})], step)
    return out.stored


def test_unknown_rows_are_refused() -> None:
    out = Guarded.poisoned((2, 4))
    with pytest.raises(ValueError, match="unknown row symbol B"):
        run([Call("gather", "scalar", "float32", {"out": out, "rows": "B"})], rows_step(2))


# -- models ------------------------------------------------------------------------------------------------------------


def compiled(name: str, dtype: str, passes: Sequence[Pass]) -> Program:
    architecture = load_architecture(name)
    config = parse_config(architecture.tiny, architecture.rules).with_dtype(dtype)
    graph = build_graph(config, MAX_POSITIONS)
    catalog = CpuCatalog(isa_levels())
    return compile_graph(
        graph, catalog, maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS, passes=passes
    )


def model_of(name: str, dtype: str, passes: Sequence[Pass] = PASSES, threads: int = 1) -> CpuModel:
    tensors = random_weights(load_architecture(name).tiny, seed=3)
    weights = Weights({key: Stored(value, "float32") for key, value in tensors.items()})
    return CpuModel(compiled(name, dtype, passes), weights, pool(threads), NUM_BLOCKS)


def steps() -> list[StepInputs]:
    """Prompts and single tokens; rows wanted for logits and for the arg max, of one kind, none, one row twice, all."""

    def tokens(count: int, seed: int) -> list[int]:
        return np.random.default_rng(seed).integers(0, 90, count).tolist()

    def step(work: list[Work], logit_rows: Sequence[int], top_rows: Sequence[int]) -> StepInputs:
        rows = {"logit_rows": np.array(logit_rows, np.int32), "top_rows": np.array(top_rows, np.int32)}
        rows["top_counts"] = np.ones(len(top_rows), np.int32)
        return replace(make_step(work, BLOCK_SIZE), **rows)

    first, second, third = [7, 2, 9], [4, 1], [5, 11, 3]
    return [
        step([Work(tokens(10, 1), 0, first), Work(tokens(9, 2), 0, second)], [9], [18, 3]),
        step([Work(tokens(3, 3), 10, first), Work(tokens(17, 4), 0, third)], [], []),
        step([Work(tokens(1, 5), 9, second), Work(tokens(2, 6), 13, first)], [0, 2, 2, 1], []),
        step([Work(tokens(1, 7), 15, first), Work(tokens(1, 8), 17, third)], [], [0, 1]),
        step([Work(tokens(4, 9), 18, third), Work(tokens(1, 10), 10, second)], range(5), range(5)),
    ]


def random_steps(seed: int, count: int) -> list[StepInputs]:
    """Two sequences that share their first block, which the first computes, and one that does not; any rows leave."""
    rng, tables, lengths = np.random.default_rng(seed), ([7, 2, 9, 10], [7, 4, 1, 6], [5, 11, 3, 8]), [0, BLOCK_SIZE, 0]
    texts = rng.integers(0, 90, (3, 4 * BLOCK_SIZE)).tolist()
    texts[1][:BLOCK_SIZE] = texts[0][:BLOCK_SIZE]
    found: list[StepInputs] = []
    for _ in range(count):
        lengths = [BLOCK_SIZE if length > 3 * BLOCK_SIZE else length for length in lengths]
        new = [int(rng.integers(1, min(6, 4 * BLOCK_SIZE - length))) for length in lengths]
        new = new if found else [BLOCK_SIZE, 0, 1]
        each = zip(texts, lengths, new, tables, strict=True)
        work = [Work(text[length : length + n], length, table) for text, length, n, table in each if n]
        step, num = make_step(work, BLOCK_SIZE), sum(new)
        logit_rows = rng.choice(num, int(rng.integers(0, num)), replace=False)
        top_rows = rng.choice(num, min(num, int(rng.integers(0, MAXIMA["G"]))), replace=False)
        rows = {"logit_rows": logit_rows.astype(np.int32), "top_rows": np.sort(top_rows).astype(np.int32)}
        found.append(replace(step, **rows, top_counts=np.ones(len(top_rows), np.int32)))
        lengths = [length + n for length, n in zip(lengths, new, strict=True)]
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_rows_may_leave(dtype: str) -> None:
    plain = model_of("llama", dtype, [run for run in PASSES if run is not last_layer_rows.run])
    early = model_of("llama", dtype, threads=3)
    for step in random_steps(5, 40):
        wanted, got = plain.run(step), early.run(step)
        assert_same_bits(got.logits, wanted.logits, "logits")
        assert_same_bits(got.top_values, wanted.top_values, "values")
        assert np.array_equal(got.top_ids, wanted.top_ids)


@in_turn(("dtype", ["float32", "bfloat16"]), ("name", REPRESENTATIVES))
def test_taking_rows_early_changes_no_bit(name: str, dtype: str) -> None:
    plain = model_of(name, dtype, [run for run in PASSES if run is not last_layer_rows.run])
    assert not any(call.family == "gather" for call in plain.program.calls)
    wanted = [(o.logits.copy(), o.top_ids.copy(), o.top_values.copy()) for o in map(plain.run, steps())]
    for threads in (1, 3):
        early = model_of(name, dtype, threads=threads)
        # pairs of a token and an expert are those of all tokens: a last layer with experts computes every row
        wanted_rows = [] if any(call.family == "expert_linear" for call in early.program.calls) else ["S"]
        # what attention and FFN both read is a norm of every row, which is cut where it is rounded
        shared = ["S"] if name in ("cohere", "falcon", "phi") else []
        if shared and dtype == "float32":
            wanted_rows, shared = [], []
        assert [call.rows for call in early.program.calls if call.family == "gather"] == [*wanted_rows, *shared]
        assert [c.rows for c in early.program.calls if c.family == "attention" and "rows" in c.args] == wanted_rows
        for step, (logits, ids, values) in zip(steps(), wanted, strict=True):
            got = early.run(step)
            assert len(logits) == len(step.logit_rows) and len(ids) == len(step.top_rows)
            assert_same_bits(got.logits, logits, "logits")
            assert np.array_equal(got.top_ids, ids)
            assert_same_bits(got.top_values, values, "values")
