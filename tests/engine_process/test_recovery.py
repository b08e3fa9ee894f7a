"""What a new process is given after a death, in which order, and how long it is careful."""

from __future__ import annotations

import signal
from typing import Any, cast

import pytest

from albireo.api.requests.submission import Submission
from albireo.engine_process import recovery
from albireo.engine_process.blame import guilty
from albireo.engine_process.link import EngineLink
from albireo.engine_process.messages import Add, Careful, Message
from albireo.engine_process.recovery import Recovery
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.params import SamplingParams

CRASH, KILL = -signal.SIGSEGV, -signal.SIGKILL


class Heard:
    """A process that was told: tickets of requests, and whether it is to be careful."""

    def __init__(self) -> None:
        self.news: list[int | bool] = []

    def send(self, message: Message) -> None:
        assert isinstance(message, Add | Careful)
        self.news.append(message.key if isinstance(message, Add) else message.is_on)

    def read(self) -> list[int | bool]:
        news, self.news = self.news, []
        return news


def link(process: Heard) -> EngineLink:
    return cast(EngineLink, process)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its attribute now is the time."""

    class Clock:
        now = 0.0

    found = Clock()
    monkeypatch.setattr(recovery.time, "monotonic", lambda: found.now)
    return found


def requests(num: int) -> list[Tracked]:
    submission = Submission(None, [1, 2], SamplingParams(seed=1, max_tokens=50))
    return [Tracked.new(key, str(key), submission, 0, Inbox(), 10.0 * key, None) for key in range(num)]


def test_who_was_computed_is_done_carefully_and_suspects_last_one_after_the_other() -> None:
    a, b, c, d = requests(4)
    for alone in (b, c):
        guilty([alone], KILL)
    guilty([a], KILL)
    a.strikes.num_alone = 0
    process, made = Heard(), Recovery()
    made.died()
    made.resume(link(process), [a, b, c, d])
    assert process.read() == [True, 0, 3], "not b and c, each of which a death had alone"
    made.moved_on(link(process), 3)
    assert process.read() == [], "d was waiting"
    made.moved_on(link(process), 0)
    assert process.read() == [1]
    made.moved_on(link(process), 1)
    assert process.read() == [2]
    made.moved_on(link(process), 2)
    assert process.read() == [False]
    assert [tracked.num_restarts for tracked in (a, b, c, d)] == [1, 1, 1, 1]


def test_suspects_that_left_meanwhile_are_not_given() -> None:
    a, over, moved, left = requests(4)
    for tracked in (a, over, moved, left):
        guilty([tracked], KILL)
    process, made = Heard(), Recovery()
    made.resume(link(process), [a, over, moved, left])
    assert process.read() == [True, 0]
    over.end_all("abort", None)
    moved.ticket = 17  # another engine has it
    made.moved_on(link(process), 0)
    assert process.read() == [3]


def test_nobody_of_an_earlier_process_is_waited_for() -> None:
    (a,) = requests(1)
    guilty([a], CRASH)
    process, made = Heard(), Recovery()
    made.resume(link(process), [a])
    assert process.read() == [True, 0]
    made.died()
    made.resume(link(process), [])
    assert process.read() == [True, False], "it died of that one, which is not run again"


def test_time_without_a_process_counts_from_the_death_or_the_arrival(clock: Any) -> None:
    early, late = requests(2)
    made = Recovery()
    clock.now = 4.0
    made.died()
    clock.now = 13.0
    made.resume(link(Heard()), [early, late])
    assert (early.times.restarts_s, late.times.restarts_s) == (9.0, 3.0)
    clock.now = 20.0
    made.died()
    clock.now = 20.5
    made.note_lost_time(early)
    assert early.times.restarts_s == 9.5
