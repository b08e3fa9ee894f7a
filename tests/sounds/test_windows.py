"""Windows of long sounds: all of it, once, and cut where it is quiet."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.sounds.windows import windows

RATE = 1000
RNG = np.random.default_rng(2)


@pytest.mark.parametrize("count", [1, 2, 29_999, 30_000, 30_001, 31_000, 100_000, 123_457])
@pytest.mark.parametrize("is_silent", [False, True])
def test_all_of_it_once(count: int, is_silent: bool) -> None:
    samples = (RNG.standard_normal(count) * (not is_silent)).astype(np.float32)
    found = windows(samples, RATE, 30.0)
    assert np.array_equal(np.concatenate([each.samples for each in found]), samples)
    starts = np.cumsum([0, *(len(each.samples) for each in found[:-1])]) / RATE
    assert [each.start_s for each in found] == pytest.approx(starts.tolist())
    assert all(0 < len(each.samples) <= 30 * RATE for each in found)
    assert all(len(each.samples) >= 24 * RATE for each in found[:-1])
    assert (len(found) == 1) == (count <= 30 * RATE)


def test_cut_where_it_is_quiet() -> None:
    samples = RNG.standard_normal(80 * RATE).astype(np.float32)
    samples[27_000:27_200] *= 0.01
    found = windows(samples, RATE, 30.0)
    assert 27_000 < len(found[0].samples) < 27_200


def test_silence_is_cut_as_late_as_may_be() -> None:
    found = windows(np.zeros(90 * RATE, np.float32), RATE, 30.0)
    assert len(found[0].samples) > 29.9 * RATE


def test_windows_shorter_than_what_is_searched() -> None:
    samples = RNG.standard_normal(5 * RATE).astype(np.float32)
    found = windows(samples, RATE, 1.0)
    assert np.array_equal(np.concatenate([each.samples for each in found]), samples)
    assert all(0 < len(each.samples) <= RATE for each in found) and len(found) < 60
