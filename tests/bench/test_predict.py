"""Schedules are the engine's own, and prices add up by hand."""

from __future__ import annotations

import pytest

from albireo.bench.cost_model import MODEL_ERROR
from albireo.bench.predict import Estimate, predict, schedule
from albireo.bench.roofline import Limits, StepShape
from albireo.engine.settings import EngineSettings
from albireo.errors import UnsupportedFeature
from albireo.image_input import ImageInput, Tile
from albireo.params import SamplingParams

GREEDY = SamplingParams(temperature=0)
LIMITS = Limits(100.0, 1000.0)


def settings(**changes):
    return EngineSettings(**{"num_blocks": 100, "max_model_len": 256, "vocab_size": 50} | changes)


class HandCosts:
    """A step takes as many seconds as it has tokens, on a machine that reads 100 bytes a second; 1 s between steps."""

    def step_s(self, shape, limits):
        return shape.num_tokens * 100.0 / limits.read_bytes_per_s

    def outside_s(self, shape):
        return 1.0


def test_one_request():
    found = schedule(settings(), [(5, 3)], GREEDY)
    assert found.steps == [StepShape(5, 0, 1, ((5, 5),)), StepShape(1, 0, 1, ((1, 6),)), StepShape(1, 0, 1, ((1, 7),))]
    assert found.first_token_steps == [0]
    drawn = schedule(settings(), [(5, 1)], SamplingParams(temperature=1.0))
    assert drawn.steps == [StepShape(5, 1, 0, ((5, 5),))]


def test_prompts_are_cut_to_the_budget_and_share_nothing():
    found = schedule(settings(max_num_batched_tokens=8), [(16, 2)] * 2, GREEDY)
    assert sum(step.num_tokens for step in found.steps) == 2 * (16 + 1)
    assert max(step.num_tokens for step in found.steps) == 8
    assert found.first_token_steps[0] < found.first_token_steps[1]


def test_pictures_cut_a_prompt_where_the_next_tile_begins():
    tile = Tile(8, 8, b"", 3)
    image = ImageInput(bytes(32), (tile, tile), ((1, 4), (5, 8)))
    found = schedule(settings(image_problem=""), [(10, 1)], GREEDY, [image])
    assert [step.num_tokens for step in found.steps] == [5, 5]
    with pytest.raises(UnsupportedFeature, match="reads text only"):
        schedule(settings(), [(10, 1)], GREEDY, [image])


def test_seats_are_kept():
    found = schedule(settings(max_num_seqs=2), [(4, 4)] * 6, GREEDY)
    assert max(len(step.sequences) for step in found.steps) == 2
    assert len(found.first_token_steps) == 6


def test_prices_by_hand():
    planned = schedule(settings(), [(5, 3)], GREEDY)
    found = predict(HandCosts(), planned, [LIMITS] * 3)
    assert found.elapsed_s.expected == pytest.approx(5 + 1 + 1 + 3)
    assert found.first_token_s.expected == found.prompt_s.expected == pytest.approx(6)
    assert found.decode_step_s.expected == pytest.approx(2)
    assert found.elapsed_s.low == pytest.approx(10 * (1 - MODEL_ERROR))
    assert found.elapsed_s.high == pytest.approx(10 * (1 + MODEL_ERROR))


def test_the_spread_of_the_limits_is_in_the_error_bars():
    planned = schedule(settings(), [(5, 1)], GREEDY)
    found = predict(HandCosts(), planned, [Limits(50.0, 1.0), Limits(200.0, 1.0), Limits(100.0, 1.0)]).prompt_s
    assert found == Estimate(6.0, pytest.approx(3.5 * (1 - MODEL_ERROR)), pytest.approx(11 * (1 + MODEL_ERROR)))


def test_the_first_token_is_the_median_request():
    planned = schedule(settings(max_num_batched_tokens=4), [(4, 1)] * 3, GREEDY)
    found = predict(HandCosts(), planned, [LIMITS])
    assert found.first_token_s.expected == pytest.approx(10)  # after 5, 10 and 15 s
    assert found.prompt_s.expected == pytest.approx(15)
    assert found.decode_step_s is None


def test_rates_turn_the_bars_round():
    assert Estimate(2.0, 1.0, 4.0).rate(8) == Estimate(4.0, 2.0, 8.0)
