"""Ctrl-C between steps only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from albireo.api.interrupt import DelayedInterrupt


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_signal_waits_for_the_check() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), DelayedInterrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        steps.append("the step goes on")
        interrupt.check()
        steps.append("not reached")
    assert steps == ["the step goes on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_after_the_last_check_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), DelayedInterrupt():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_error_is_not_hidden_by_the_signal() -> None:
    with pytest.raises(ZeroDivisionError), DelayedInterrupt():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError


def test_a_programs_own_handler_stays() -> None:
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append("mine"))
    with DelayedInterrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        interrupt.check()
    assert seen == ["mine"]


def test_other_threads_leave_signals_alone() -> None:
    handlers = []

    def enter() -> None:
        with DelayedInterrupt():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
