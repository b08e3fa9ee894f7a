"""Who is not run again after deaths of the process."""

from __future__ import annotations

import signal

import pytest

from albireo.api.requests.submission import Submission
from albireo.engine_process.blame import guilty, is_suspect, may_be_guilty, may_move
from albireo.engine_process.messages import Update
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.params import SamplingParams

CRASH, KILL = -signal.SIGSEGV, -signal.SIGKILL


def make(key: int) -> Tracked:
    submission = Submission(None, [1, 2], SamplingParams(seed=1, max_tokens=50))
    return Tracked.new(key, str(key), submission, 0, Inbox(), 0.0, None)


def advance(tracked: Tracked) -> None:
    tracked.take(Update(tracked.key, 0, [5]), 1.0)


@pytest.mark.parametrize(
    ("status", "num_alone"),
    [(CRASH, 1), (1, 1), (KILL, 3), (-signal.SIGTERM, 3), (-signal.SIGINT, 3), (-signal.SIGHUP, 3)],
)
def test_in_company_once_then_alone(status: int, num_alone: int) -> None:
    a, b, c = make(0), make(1), make(2)
    assert guilty([a, b, c], status) == []
    assert not is_suspect(b)
    for _ in range(num_alone - 1):
        assert guilty([b], status) == []
        assert is_suspect(b)
    assert guilty([b], status) == [b]


def test_who_got_on_was_not_to_blame() -> None:
    a = make(0)
    for _ in range(10):
        assert guilty([a], CRASH) == []
        advance(a)
        assert not is_suspect(a)


def test_only_who_did_not_get_on_since_may_be_guilty_and_has_to_stay() -> None:
    a, b = make(0), make(1)
    assert not may_be_guilty(a) and may_move(a, CRASH)
    guilty([a, b], CRASH)
    advance(b)
    assert may_be_guilty(a) and not may_be_guilty(b)
    assert not may_move(a, CRASH) and may_move(b, CRASH)
    assert may_move(a, KILL), "once, since it is hardly its own doing"
    guilty([a], KILL)
    assert not may_move(a, KILL)


def test_in_company_nobody_is_condemned() -> None:
    a, b = make(0), make(1)
    for _ in range(10):
        assert guilty([a, b], CRASH) == []


def test_nothing_computed_nobody_to_blame() -> None:
    assert guilty([], CRASH) == []
