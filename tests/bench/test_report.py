"""Fractions and spreads counted by hand."""

from __future__ import annotations

import pytest

from albireo.bench.limits import LimitProbe
from albireo.bench.report import (
    NO_GPU_COSTS,
    Fractions,
    MeasuredRun,
    Predicted,
    Spread,
    Yardsticks,
    common_figures,
    common_lines,
    fractions,
    predicted,
    row,
)
from albireo.bench.roofline import Limits, StepShape, Work
from albireo.bench.timed import Run, TimedStep
from albireo.errors import InvariantError

PROMPT = StepShape(8, 0, 1, ((8, 8),))
DECODE = StepShape(1, 0, 1, ((1, 9),))
LIMITS = Limits(read_bytes_per_s=100.0, dot_flops_per_s=1000.0)


class HandWork:
    """A prompt is bound by its flops (2 s), a decode step by its bytes (0.5 s)."""

    def work(self, shape):
        return Work(50, 100) if shape.is_decode else Work(50, 2000)


class HandCosts:
    """A prompt step takes 5 s by the model, a decode step 1.5 s; 0.5 s between steps."""

    def step_s(self, shape, limits):
        assert limits == LIMITS
        return 1.5 if shape.is_decode else 5.0

    def outside_s(self, shape):
        return 0.5


def run(elapsed=10.0, steps=None, digest="a"):
    steps = [TimedStep(PROMPT, 4.0), TimedStep(DECODE, 1.0), TimedStep(DECODE, 3.0)] if steps is None else steps
    return Run(elapsed, steps, [4.5, 5.5], 8, 3, 0, digest)


def test_fractions_by_hand():
    assert fractions(MeasuredRun(run(), LIMITS), HandWork()) == Fractions(
        whole=pytest.approx(3.0 / 10.0),
        decode=pytest.approx(1.0 / 4.0),
        prompt=pytest.approx(2.0 / 4.0),
        outside_steps=pytest.approx(0.2),
        compute_bound=pytest.approx(2.0 / 3.0),
    )


def test_a_run_without_decode_steps():
    found = fractions(MeasuredRun(run(5.0, [TimedStep(PROMPT, 4.0)]), LIMITS), HandWork())
    assert found.decode is None
    assert found.prompt == pytest.approx(0.5)


def test_spread():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([3.0, 1.0, 2.0]).text("{:.0f}".format) == "2  (1 to 3)"
    assert Spread.of([2.0]).text("{:.0f}".format) == "2"


COSTS = HandCosts()


def figures(*runs, costs=COSTS):
    yardsticks = Yardsticks(HandWork(), costs, LimitProbe(1, "float32", 0))
    return common_figures([MeasuredRun(each, LIMITS) for each in runs], yardsticks, "m")


def test_predicted_beside_measured_by_hand():
    assert predicted(MeasuredRun(run(), LIMITS), HandCosts()) == Predicted(
        elapsed_s=9.5,  # 5 + 1.5 + 1.5, and three times 0.5
        decode_step_s=1.5,
        whole_error=pytest.approx(-0.05),
        decode_error=pytest.approx(3.0 / 4.0 - 1),
        prompt_error=pytest.approx(5.0 / 4.0 - 1),
    )
    found = figures(run(10.0), run(19.0))
    assert found["predicted"]["whole_error"] == pytest.approx({"median": -0.275, "min": -0.5, "max": -0.05})
    assert found["predicted"]["decode_step_s"]["median"] == 1.5
    shown = "\n".join(common_lines(found))
    assert "whole 9.500 s, -28% of measured; decode step 1.5e+03 ms, -25%; prompt steps +25%" in shown


def test_a_prediction_without_decode_steps():
    found = figures(run(5.0, [TimedStep(PROMPT, 4.0)]))
    assert found["predicted"]["decode_step_s"] is None
    assert found["predicted"]["decode_error"] is None
    assert "whole 5.500 s, +10% of measured; prompt steps +25%" in "\n".join(common_lines(found))


def test_where_there_is_no_cost_model_nothing_is_predicted():
    found = figures(run(10.0), costs=None)
    assert found["predicted"] is None
    assert row("predicted", NO_GPU_COSTS) in common_lines(found)


def test_the_machine_is_what_computed():
    found = figures(run(10.0))
    machine, limits = found["machine"], found["limits"]
    assert row("machine", f"{machine['cpu']}, 1 threads, {machine['isa_levels'][0]}") in common_lines(found)
    beside = found | {"limits": limits | {"gpu": "NVIDIA H200", "num_threads": None}}
    assert row("machine", f"NVIDIA H200, beside {machine['cpu']}") in common_lines(beside)


def test_common_figures():
    found = figures(run(10.0), run(20.0))
    assert found["fraction_of_limit"]["whole"] == pytest.approx({"median": 0.225, "min": 0.15, "max": 0.3})
    assert found["time_to_first_token_s"]["median"] == 5.0
    assert found["decode_step_s"]["median"] == 2.0
    assert found["limits"]["read_bytes_per_s"]["median"] == 100.0
    assert found["num_steps"] == 3
    shown = "\n".join(common_lines(found))
    assert "0.50 of the limit in prompt steps" in shown
    assert "0.25 of the limit in decode steps" in shown


def test_figures_without_decode_steps_can_be_shown():
    found = figures(run(5.0, [TimedStep(PROMPT, 4.0)]))
    assert found["decode_step_s"] is None
    assert "decode step" not in "\n".join(common_lines(found))


def test_runs_that_differ_are_a_bug():
    with pytest.raises(InvariantError, match="2 different outputs in 3 runs"):
        figures(run(digest="a"), run(digest="b"), run(digest="a"))


def test_rows_line_up():
    assert row("a", "x").index("x") == row("longer", "x").index("x")
