"""No value that a tuning table may hold changes one bit: each is run, on every kernel that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest

from albireo import _native
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, kernel_revision, num_threads_of
from albireo.backends.cpu.model import CpuModel
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.pipeline import compile_graph
from albireo.dtypes import COMPUTE_DTYPES
from albireo.graph.tuning import ALLOWED, BUCKETS, SHAPES, Tuning, bucket_of
from backends.cpu.harness import F32, Guarded, assert_same_bits, normal, panels, pool, rows_step, variants
from backends.cpu.test_model import graph_of, weights_of
from backends.cpu.test_pack import Stored, Weights
from in_turn import in_turn
from representatives import REPRESENTATIVES
from step_batches import Work, make_step

#: Rows of one slab and of several; of tall tiles, wide tiles and both; of every bucket but the last.
ROW_COUNTS = (1, 7, 20, 29, 101)


def tunings() -> Iterator[Tuning]:
    """Every allowed value of every parameter, the others at their defaults; then all at their ends together."""
    for name, values in ALLOWED.items():
        yield from (replace(Tuning(), **{name: value}) for value in values)
    yield Tuning(**{name: values[0] for name, values in ALLOWED.items()})
    yield Tuning(**{name: values[-1] for name, values in ALLOWED.items()})


def for_every_bucket(tuning: Tuning) -> list[dict[str, int]]:
    return [asdict(tuning)] * len(BUCKETS)


@pytest.mark.parametrize(("dtype", "level"), variants("linear"))
def test_a_linear_of_several_k_blocks_keeps_its_bits(dtype: str, level: str) -> None:
    n, k = 130, 700
    weight = panels(normal(n, k, seed=1, dtype=dtype), dtype)
    for rows in ROW_COUNTS if level in isa_levels()[:3] else (7, 29):
        x, step = Guarded(normal(rows, k, seed=rows, dtype=dtype), dtype), rows_step(rows)
        wanted: F32 | None = None
        for tuning in tunings():
            out = Guarded.poisoned((rows, n))
            args = {"x": x.address, "weight": weight.address, "out": out.address, "n": n, "k": k}
            program = _native.Program(pool(2), 1)
            program.add("linear", level, dtype, args | {"x_dtype": dtype, "w_dtype": dtype}, for_every_bucket(tuning))
            walk(program, step)
            wanted = out.values if wanted is None else wanted
            assert_same_bits(out.values, wanted, f"{rows} rows, {tuning}")


def walk(program: _native.Program, step: StepInputs) -> None:
    shape = (len(step.top_rows), _native.TOP_MOST)
    program.run(*step.arrays, np.zeros(shape, np.int32), np.zeros(shape, np.float32))


@in_turn(("name", REPRESENTATIVES), ("dtype", COMPUTE_DTYPES))
def test_a_model_keeps_its_bits(name: str, dtype: str) -> None:
    """Prompts, a mixed step, a batch of decoding sequences and a single token, through every family."""
    program = compile_graph(
        graph_of(name, dtype),
        CpuCatalog(isa_levels()),
        maxima={"T": 128, "R": 128, "G": 16},
        block_size=8,
        max_positions=64,
    )
    weights = Weights({key: Stored(value, dtype) for key, value in weights_of(name, dtype).items()})
    model = CpuModel(program, weights, pool(2), 32)
    tokens = np.random.default_rng(3).integers(0, 90, 200).tolist()
    plans = [
        [Work(tokens[:60], 0, list(range(1, 9))), Work(tokens[60:101], 0, list(range(9, 15)))],
        [Work(tokens[101:102], 60, list(range(1, 9))), Work(tokens[102:111], 0, [16, 17]), Work([5], 0, [18])],
        [Work(tokens[111:112], 61, list(range(1, 9)))],
    ]
    steps = [make_step(plan, 8) for plan in plans]
    wanted: list[tuple[bytes, bytes, bytes]] | None = None
    for tuning in tunings():
        model.native = model._bind([replace(call, tuning=(tuning,) * len(BUCKETS)) for call in program.calls])
        got = [(o.logits.tobytes(), o.top_ids.tobytes(), o.top_values.tobytes()) for o in map(model.run, steps)]
        wanted = wanted or got
        assert got == wanted, tuning
    assert wanted is not None and any(any(part) for part in wanted[0])


@pytest.mark.parametrize("rows", [1, 2, 8, 9, 28, 29, 64, 65, 128, 129, 512, 513])
def test_a_call_takes_the_numbers_of_its_rows(rows: int) -> None:
    tunings = [asdict(Tuning(claims=1 + bucket)) for bucket in range(len(BUCKETS))]
    x, weight, out = Guarded(normal(rows, 16)), panels(normal(64, 16), "float32"), Guarded.poisoned((rows, 64))
    program = _native.Program(pool(2), 1)
    args = {"x": x.address, "weight": weight.address, "out": out.address, "n": 64, "k": 16}
    program.add("linear", isa_levels()[-1], "float32", args, tunings)
    program.add("linear", isa_levels()[-1], "float32", args)
    walk(program, rows_step(rows))
    assert program.last_tuning(0)["claims"] == 1 + bucket_of(rows)
    assert program.last_tuning(1) == asdict(Tuning())


def test_native_and_python_agree() -> None:
    assert _native.default_tuning() == asdict(Tuning())
    assert [most for _, most in BUCKETS if most is not None] == _native.BUCKET_ROWS
    assert all(kernel_revision(family) >= 1 for family in SHAPES)
    assert num_threads_of(3) == 3 == pool(3).size
    assert num_threads_of(None) == len(_native.usable_cpus())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tall_rows": 29}, "tuning tall_rows=29 is not within 0 to 28"),
        ({"claims": 0}, "tuning claims=0 is not within 1"),
        ({"slab_rows": 100}, "slab_rows is no multiple"),
        ({"one_queue": 2}, "one_queue=2 is not within 0 to 1"),
        ({"block_steps": 0}, "block_steps=0"),
        ({"colour": 1}, "unknown field"),
    ],
)
def test_the_native_core_refuses_what_would_break_it(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _add([asdict(Tuning()) | change] * len(BUCKETS))


def test_the_native_core_wants_every_number_of_every_bucket() -> None:
    with pytest.raises(ValueError, match="one tuning a bucket, or none"):
        _add([asdict(Tuning())])
    for field in fields(Tuning):
        lacking = asdict(Tuning())
        del lacking[field.name]
        with pytest.raises(ValueError, match=f"tuning lacks {field.name}"):
            _add([lacking] * len(BUCKETS))


def _add(tunings: list[Any]) -> None:
    _native.Program(pool(), 1).add("linear", "scalar", "float32", {}, tunings)
