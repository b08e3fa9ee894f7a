"""_native.Program: what add and run refuse, skipped calls, barriers, and threads that outnumber the work."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.graph.private_norms import FEW_ROWS
from backends.cpu.harness import (
    Call,
    Guarded,
    assert_same_bits,
    ints,
    level_of,
    normal,
    panels,
    pool,
    rows_step,
    run,
    variants,
)

I32 = NDArray[np.int32]
LEVEL = dict(reversed(variants("linear")))["float32"]


def add(family: str = "linear", isa: str = "scalar", dtype: str = "float32", **args: Any) -> None:
    _native.Program(pool(), 1).add(family, isa, dtype, args)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"family": "convolution"}, "unknown kernel family convolution"),
        ({"isa": "avx1024"}, "family linear has no variant for float32 at level avx1024"),
        (
            {"isa": "amx_model"},
            "family linear has no variant for float32 at level amx_model",
        ),
        ({"colour": 1}, "unknown kernel argument colour"),
        ({"w_dtype": "int7"}, "unknown dtype int7"),
        ({"kv_dtype": "float64"}, "unknown dtype float64"),
        ({"family": "attention", "rows": "R", "gather": 1}, "attention is of all rows, or of those that leave"),
        ({"family": "attention", "rows": "S", "gather": 2}, "attention is of all rows, or of those that leave"),
        ({"family": "attention", "kv_group": 1}, "only layers of the first block group see all positions"),
    ],
)
def test_add_refuses(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add(**given)


@pytest.mark.parametrize(
    ("family", "argument", "message"),
    [("route", "top_k", "how many experts a token has"), ("causal_conv", "state_slots", "how many slots for states")],
)
def test_add_refuses_calls_that_disagree(family: str, argument: str, message: str) -> None:
    program = _native.Program(pool(), 1)
    for count in (2, 2, 0):
        program.add(family, "scalar", "float32", {argument: count})
    with pytest.raises(ValueError, match=message):
        program.add(family, "scalar", "float32", {argument: 3})


def test_add_refuses_a_private_norm_that_the_next_call_does_not_read() -> None:
    program = _native.Program(pool(), 1)
    out, other = Guarded.poisoned((2, 16)), Guarded.poisoned((2, 16))
    program.add("norm", "scalar", "float32", {"out": out.address, "k": 16, "is_private": 1})
    with pytest.raises(ValueError, match="read by the next one"):
        program.add("linear", "scalar", "float32", {"x": other.address, "k": 16, "n": 64})


@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_a_private_norm_changes_no_bit(rows: int) -> None:
    """Few rows are normed by every thread for itself and never written; more, or one thread's, go through memory."""
    assert _native.FEW_ROWS == FEW_ROWS
    x, weight, w = normal(rows, 48, seed=1), normal(1, 48, seed=2), normal(64, 48, seed=3)

    def result(is_private: int, threads: int) -> tuple[Any, bool]:
        normed, out = Guarded.poisoned((rows, 48)), Guarded.poisoned((rows, 64))
        norm = {"x": Guarded(x), "weight": Guarded(weight), "out": normed, "k": 48, "eps": 1e-6}
        linear = {"x": normed, "weight": panels(w, "float32"), "out": out, "n": 64, "k": 48}
        level = level_of("norm", LEVEL)
        calls = [
            Call("norm", level, "float32", norm | {"is_private": is_private}),
            Call("linear", level, "float32", linear),
        ]
        run(calls, rows_step(rows), threads)
        return out.stored, bool(np.isnan(normed.values).all())

    expected, _ = result(0, 1)
    for threads in (1, 2, 3):
        got, untouched = result(1, threads)
        assert_same_bits(got, expected, f"{threads} threads")
        assert untouched == (threads > 1 and rows <= FEW_ROWS)


def test_run_refuses_more_arg_max_rows_than_it_was_made_for() -> None:
    program = _native.Program(pool(), 2)
    with pytest.raises(ValueError, match="more top rows"):
        program.run(*_step_arrays(3, top_rows=range(3)), *_room(3, 3))


def test_run_refuses_a_step_without_the_block_tables_of_a_call() -> None:
    program = _native.Program(pool(), 1)
    program.add("attention", "scalar", "float32", {"kv_group": 1, "window": 8})
    with pytest.raises(ValueError, match="fewer block tables than calls read"):
        program.run(*_step_arrays(1), *_room(0, 0))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"snapshot_slots": [0, 1], "snapshot_rows": [0]}, "step arrays disagree in length"),
        ({"snapshot_slots": [0], "snapshot_rows": [0, 0]}, "step arrays disagree in length"),
        ({"row_ends": [1, 2]}, "step arrays disagree in length"),
        ({"row_ends": [1, 2, 4]}, "a row is to see positions that its sequence does not have"),
        ({"given": [(3, 8)] * 13}, "more rows than there are places"),
        ({"given": []}, "reads rows that the step does not give, or of another width"),
        ({"given": [(2, 8)]}, "reads rows that the step does not give, or of another width"),
        ({"given": [(3, 9)]}, "reads rows that the step does not give, or of another width"),
        ({"given_rows": [0, -1]}, "given embeddings are not as many, or not as wide"),
        ({"given_rows": [0, -1, 3]}, "a token's embedding is to be a row that the step does not give"),
        ({"given_rows": [0, -2, 2]}, "a token's embedding is to be a row that the step does not give"),
        ({"given_rows": [0, -1, 2]}, "adds rows that the step does not give, or of another width"),
        ({"given": [(3, 8), (3, 9)], "given_rows": [0, -1, 2]}, "adds rows that the step does not give"),
        ({"given": [(3, 8), (2, 8)], "given_rows": [0, -1, 2]}, "adds rows that the step does not give"),
        ({"rope_rows": (2, 8)}, "given rotations are not one for each row, or not as wide"),
        ({"rope_rows": (3, 9)}, "given rotations are not one for each row, or not as wide"),
    ],
)
def test_run_refuses_what_its_arrays_cannot_be(asked: dict[str, Any], message: str) -> None:
    """Of three rows; shapes stand for arrays of numbers."""
    program = _native.Program(pool(), 1)
    for family, place in (("given", 0), ("embed", 0), ("rope", 0), ("add_given", 1)):
        program.add(family, "scalar", "float32", {"k": 8, "n": place})
    zeros = partial(np.zeros, dtype=np.float32)
    made = {key: zeros(value) if isinstance(value, tuple) else ints(value) for key, value in asked.items()}
    made["given"] = [zeros(shape) for shape in asked.get("given", [(3, 8)])]
    with pytest.raises(ValueError, match=message):
        program.run(*_step_arrays(3), *_room(0, 0), **made)


def test_run_refuses_slots_of_half_a_group() -> None:
    program, arrays = _native.Program(pool(), 1), list(_step_arrays(2))
    arrays[2] = ints([0, 1, 2])
    with pytest.raises(ValueError, match="step arrays disagree in length"):
        program.run(*arrays, *_room(0, 0))


def test_run_refuses_room_that_is_too_small() -> None:
    program = _native.Program(pool(), 3)
    with pytest.raises(ValueError, match="disagree in length"):
        program.run(*_step_arrays(3, top_rows=range(3)), *_room(3, 2))


@pytest.mark.parametrize("count", [0, 66])
def test_run_refuses_counts_that_the_lists_cannot_hold(count: int) -> None:
    program = _native.Program(pool(), 1)
    counts = np.array([count], np.int32)
    with pytest.raises(ValueError, match="1 to 65"):
        program.run(*_step_arrays(1, top_rows=[0], top_counts=counts), *_room(1, 1))


def _room(ids: int, values: int) -> tuple[I32, Any]:
    return np.zeros((ids, _native.TOP_MOST), np.int32), np.zeros((values, _native.TOP_MOST), np.float32)


def _step_arrays(rows: int, **given: Any) -> tuple[I32, ...]:
    s = rows_step(rows, **given)
    places = (s.token_ids, s.positions, s.slots, s.query_start, s.context_len, s.block_table)
    return *places, s.logit_rows, s.top_rows, s.top_counts


def _chain(length: int, rows: int, symbol: str = "T") -> tuple[list[Call], list[Guarded], list[np.ndarray]]:
    """Linears each of which reads what the one before wrote."""
    width = 70
    x = Guarded(normal(rows, width))
    buffers, weights = [x], [normal(width, width, seed=i) / np.float32(width**0.5) for i in range(length)]
    calls = []
    for w in weights:
        out = Guarded.poisoned((rows, width))
        args = {"x": buffers[-1], "weight": panels(w, "float32"), "out": out, "n": width, "k": width, "rows": symbol}
        calls.append(Call("linear", LEVEL, "float32", args))
        buffers.append(out)
    return calls, buffers, weights


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 50])
def test_threads_wait_for_each_other(rows: int, threads: int) -> None:
    """Thirty calls in a row, many times over; a barrier that lets one through early gives other numbers."""
    calls, buffers, weights = _chain(30, rows)
    run(calls, rows_step(rows), 1)
    wanted = buffers[-1].values
    exact = buffers[0].values.astype(np.float64)
    for w in weights:
        exact = exact @ w.T.astype(np.float64)
    np.testing.assert_allclose(wanted, exact, rtol=0, atol=1e-4 * np.abs(exact).max())
    for _ in range(5 if threads < 7 else 1):
        again, fresh, _ = _chain(30, rows)
        run(again, rows_step(rows), threads)
        assert_same_bits(fresh[-1].values, wanted, "the last of the chain")


def test_calls_over_no_rows_are_skipped() -> None:
    """R and G are zero in this step; the call on T rows after them runs."""
    calls, buffers, _ = _chain(1, 3)
    skipped, untouched, _ = _chain(1, 3, "R")
    also, untouched_too, _ = _chain(1, 3, "G")
    run([*skipped, *also, *calls], rows_step(3), 2)
    assert np.isfinite(buffers[1].values).all()
    assert np.isnan(untouched[1].values).all()
    assert np.isnan(untouched_too[1].values).all()


def test_rows_of_another_symbol_are_counted() -> None:
    calls, buffers, _ = _chain(1, 4, "R")
    run(calls, rows_step(9, logit_rows=[0, 5]))
    assert np.isfinite(buffers[1].values[:2]).all()
    assert np.isnan(buffers[1].values[2:]).all()


def test_an_empty_step_and_an_empty_program() -> None:
    calls, buffers, _ = _chain(2, 3)
    run(calls, rows_step(0), 2)
    assert np.isnan(buffers[1].values).all()
    ids, values = run([], rows_step(3), 2)
    assert ids.size == values.size == 0


def test_a_call_added_later_brings_its_scratch() -> None:
    program = _native.Program(pool(), 1)
    small, buffers, _ = _chain(1, 3)
    program.add("linear", LEVEL, "float32", _addresses(small[0]))
    before = program.scratch_bytes
    program.run(*_step_arrays(3), *_room(0, 0))
    first = buffers[1].values
    wide = normal(3, 5000)
    out = Guarded.poisoned((3, 64))
    args = {"x": Guarded(wide), "weight": panels(normal(64, 5000, seed=1), "float32"), "out": out, "n": 64, "k": 5000}
    program.add("linear", LEVEL, "float32", _addresses(Call("linear", LEVEL, "float32", args)))
    assert program.scratch_bytes > before
    program.run(*_step_arrays(3), *_room(0, 0))
    assert_same_bits(buffers[1].values, first, "the first call")
    assert np.isfinite(out.values).all()


def _addresses(call: Call) -> dict[str, Any]:
    return {name: v.address if isinstance(v, Guarded) else v for name, v in call.args.items()}


def test_copy_moves_bytes_also_onto_themselves() -> None:
    data = np.arange(100, dtype=np.uint8)
    _native.copy(data.ctypes.data + 10, data.ctypes.data, 50)
    assert np.array_equal(data[10:60], np.arange(50))
    assert np.array_equal(data[60:], np.arange(60, 100))


def test_probes_measure_something() -> None:
    memory = _native.Memory(1 << 20)
    assert _native.probe_read(pool(2), memory) > 0
    assert _native.probe_dot(pool(), "float32", 1000) > 0
    has_dots = not {"avx512bf16", "neonmm"}.isdisjoint(_native.isa_levels())
    assert (_native.probe_dot(pool(), "bfloat16", 1000) > 0) == has_dots
    assert ints([1]).dtype == np.int32
