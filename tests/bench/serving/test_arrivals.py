"""The schedule of a load: its rate is exact, its shape is the gamma distribution's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from albireo.bench.serving.arrivals import arrival_offsets
from albireo.errors import ConfigError


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 4.0, math.inf])
def test_the_rate_offered_is_the_rate_asked_for(burstiness):
    offsets = arrival_offsets(500, 8.0, burstiness, 3)
    assert len(offsets) == 500
    assert offsets[-1] == pytest.approx(500 / 8.0)
    assert offsets == sorted(offsets)
    assert offsets[0] > 0


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_vary_as_the_burstiness_says(burstiness):
    gaps = np.diff(arrival_offsets(40_000, 10.0, burstiness, 0))
    assert gaps.mean() == pytest.approx(0.1, rel=1e-3)
    # The squared coefficient of variation of a gamma distribution is one over its shape.
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(1 / burstiness, rel=0.06)


def test_infinite_burstiness_is_a_metronome():
    assert np.diff(arrival_offsets(50, 4.0, math.inf, 0)) == pytest.approx(0.25)


def test_an_infinite_rate_sends_all_at_once():
    assert arrival_offsets(3, math.inf, 0.5, 0) == [0.0, 0.0, 0.0]


def test_seeds():
    assert arrival_offsets(9, 1.0, 1.0, 5) == arrival_offsets(9, 1.0, 1.0, 5)
    assert arrival_offsets(9, 1.0, 1.0, 5) != arrival_offsets(9, 1.0, 1.0, 6)


@pytest.mark.parametrize(("rate", "burstiness"), [(0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (1.0, 0.0)])
def test_refusals(rate, burstiness):
    with pytest.raises(ConfigError, match="it must be above 0"):
        arrival_offsets(3, rate, burstiness, 0)
