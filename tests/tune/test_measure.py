"""Steps, kinds of calls and timers that measurements are made of."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.api.load import Loaded, load
from albireo.config import EngineConfig
from albireo.graph.tuning import BUCKETS, SHAPES, Tuning, bucket_of
from albireo.tune import measure
from albireo.tune.measure import CallTimer, StepTimer, kinds, row_counts_of, step_of


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The bundled model, with few KV blocks."""
    config = EngineConfig(skip_tokenizer_init=True, num_gpu_blocks_override=40, num_threads=1)
    return load(config, is_tuned=False)


class Probe:
    def read(self) -> float:
        return 7.0


@pytest.mark.parametrize("symbol", ["T", "R", "G", "S"])
@pytest.mark.parametrize("rows", [1, 24, 64, 100, 192, 700])
def test_a_step_has_the_rows_asked_for(loaded: Loaded, symbol: str, rows: int) -> None:
    if rows > loaded.program.maxima[symbol]:
        pytest.skip("no step has so many")
    step = step_of(symbol, rows, loaded)
    step.check(loaded.config.block_size)
    assert step.sizes[symbol] == rows
    assert all(step.sizes[name] <= loaded.program.maxima[name] for name in ("R", "G"))
    assert step.block_table.min() >= 1 and step.block_table.max() < loaded.model.num_blocks
    assert step.context_len.max() <= loaded.settings.max_model_len
    assert (step.num_sequences == rows) == (rows <= loaded.config.step_limits.max_num_seqs)


def test_row_counts_lie_in_their_bucket() -> None:
    for most in (1, 20, 64, 128, 2048):
        for bucket in range(len(BUCKETS)):
            counts = row_counts_of(bucket, most)
            assert all(bucket_of(count) == bucket and count <= most for count in counts)
            assert bool(counts) == (BUCKETS[bucket][0] <= most)


def test_kinds_are_of_one_kernel_and_share_a_row_symbol(loaded: Loaded) -> None:
    found = kinds(loaded.program)
    assert {kind.key.family for kind in found} == set(SHAPES)
    for kind in found:
        assert {call.kernel for call in kind.calls} == {kind.key.kernel}
        assert {call.rows for call in kind.calls} == {kind.rows}
    sizes = [kind.weight_elements * len(kind.calls) for kind in found]
    assert sizes == sorted(sizes, reverse=True)
    (head,) = (kind for kind in found if kind.key.family == "head_top")
    assert head.rows == "G"


def test_few_layers_are_enough_where_arithmetic_takes_the_time(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(kind for kind in kinds(loaded.program) if len(kind.calls) >= 5)
    assert kind.enough((1,), 0) == kind.calls
    monkeypatch.setattr(measure, "ENOUGH_WORK", 2 * kind.weight_elements * 100)
    assert kind.enough((1,), 0) == kind.calls
    assert kind.enough((100,), 0) == (kind.calls[0], kind.calls[len(kind.calls) // 2])
    assert len(kind.enough((10**9,), 0)) == 2


def test_layers_are_enough_that_no_cache_holds(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(kind for kind in kinds(loaded.program) if len(kind.calls) >= 5)
    monkeypatch.setattr(measure, "ENOUGH_BYTES", 3 * kind.weight_bytes)
    assert len(kind.enough((1,), 0)) == 3
    assert len(kind.enough((1,), kind.weight_bytes)) == measure.ENOUGH_CACHES
    attention = next(kind for kind in kinds(loaded.program) if kind.key.family == "attention")
    assert attention.weight_bytes == 0 and attention.enough((1,), 0) == attention.calls


def test_a_time_is_that_of_the_fastest_run_summed_over_the_row_counts(loaded: Loaded) -> None:
    ticks = iter(np.cumsum([0, 1.0] * 2 + [0, 5.0] + [0, 3.0] + [0, 9.0]).tolist())
    kind = kinds(loaded.program)[0]
    timer = CallTimer(loaded, kind, 1, Probe(), lambda: next(ticks))  # type: ignore[arg-type]
    # two row counts; the first use measures each once to find out how often to repeat: a second is long, so once
    assert timer.seconds(Tuning()) == 8.0
    assert timer.read_speed() == 7.0


def test_short_runs_are_repeated_and_fewer_times_for_a_glance(loaded: Loaded) -> None:
    clock = iter(x * 1e-3 for x in range(1000))
    timer = CallTimer(loaded, kinds(loaded.program)[0], 0, Probe(), lambda: next(clock))  # type: ignore[arg-type]
    for look, repeats in ((timer.seconds, measure.MAX_REPEATS), (timer.glance, 2)):
        assert look(Tuning()) == pytest.approx(1e-3)
        before = next(clock)
        look(Tuning())
        assert next(clock) - before == pytest.approx((2 * repeats + 1) * 1e-3)


def test_calls_run_with_the_numbers_in_question(loaded: Loaded) -> None:
    timer = CallTimer(loaded, kinds(loaded.program)[0], 0, Probe())  # type: ignore[arg-type]
    for tuning in (Tuning(claims=4), Tuning(), Tuning(claims=16, one_queue=1)):
        timer.glance(tuning)
        assert Tuning(**timer.ready(tuning).native.last_tuning(0)) == tuning
    steps = StepTimer(loaded, {"a": loaded.program}, 6, Probe())  # type: ignore[arg-type]
    assert steps.seconds("a") > 0


def test_measuring_does_not_disturb_a_model(loaded: Loaded) -> None:
    """What a model computes afterwards is what it computed before: everything it reads, it writes first."""
    step = step_of("R", 3, loaded)
    loaded.model.fill_with_numbers(loaded.model.num_blocks)
    before = loaded.model.run(step).logits.copy()
    assert np.isfinite(before).all()
    loaded.model.runner(kinds(loaded.program)[0].calls)(step)
    loaded.model.fill_with_numbers(loaded.model.num_blocks)
    assert np.array_equal(loaded.model.run(step).logits.view(np.uint32), before.view(np.uint32))
