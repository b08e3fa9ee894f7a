"""Whether the engine process is started again: crashes, ends from outside, and steps between them."""

from __future__ import annotations

import signal

from albireo.engine_process.retries import MAX_DEATHS, PAUSE_S, Retries


def test_pauses_grow_until_another_try_is_pointless() -> None:
    retries = Retries()
    pauses = [retries.died(-signal.SIGSEGV, was_ready=True) for _ in range(MAX_DEATHS)]
    assert pauses == [PAUSE_S * n for n in range(MAX_DEATHS - 1)] + [None]


def test_a_step_begins_the_count_anew() -> None:
    retries = Retries()
    for _ in range(3 * MAX_DEATHS):
        assert retries.died(1, was_ready=True) == 0.0
        retries.mended()


def test_who_was_killed_from_outside_after_loading_is_tried_ten_times_as_often() -> None:
    retries = Retries()
    assert all(retries.died(-signal.SIGKILL, was_ready=True) is not None for _ in range(9 * MAX_DEATHS))
    loading = Retries()
    assert [loading.died(-signal.SIGKILL, was_ready=False) for _ in range(MAX_DEATHS)][-1] is None
