"""Accounts by themselves: parts add up, whatever happened to a request."""

from __future__ import annotations

import time
from typing import Any

import pytest

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.params import SamplingParams
from albireo.server.accounts import MAX_KEPT, Account, Accounts

FORM = {"regex": "a+"}


def make(answered_s: float | None = 10.0, form: Any = None, **times: Any) -> Account:
    params = SamplingParams(seed=1, structured_outputs=form)
    tracked = Tracked.new(0, "a", Submission(None, [1], params), 0, Inbox(), 1.0, None)
    for name, value in times.items():
        setattr(tracked.times, name, value)
    tracked.is_over = "ended_s" in times
    return Account("a", "/v1/completions", 1.0, 1.5, 0, 0, 0, [tracked], answered_s)


@pytest.mark.parametrize(
    ("times", "parts"),
    [
        (
            {"first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 9.0},
            {"queue_s": 1.5, "prefill_s": 1.0, "decode_s": 5.0, "delivery_s": 1.0},
        ),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 9.0, "restarts_s": 2.0},
            {"queue_s": 1.5, "prefill_s": 1.0, "decode_s": 3.0, "restart_s": 2.0, "delivery_s": 1.0},
        ),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 8.0, "ended_s": 9.0, "restarts_s": 3.0},
            {"queue_s": 1.5, "prefill_s": 3.0, "restart_s": 3.0, "delivery_s": 1.0},
        ),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 9.0, "restarts_s": 2.0, "preempted_s": 2.5},
            {
                "queue_s": 1.5,
                "prefill_s": 1.0,
                "decode_s": 0.5,
                "preempted_s": 2.5,
                "restart_s": 2.0,
                "delivery_s": 1.0,
            },
        ),
        (
            {"form": FORM, "compiled_s": 2.0, "first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 9.0},
            {"grammar_s": 0.5, "queue_s": 1.0, "prefill_s": 1.0, "decode_s": 5.0, "delivery_s": 1.0},
        ),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 9.0, "preempted_s": 99.0},
            {"queue_s": 1.5, "preempted_s": 6.0, "delivery_s": 1.0},
        ),
        ({"form": FORM, "ended_s": 9.0}, {"grammar_s": 7.5, "delivery_s": 1.0}),
        ({"ended_s": 9.0}, {"queue_s": 7.5, "delivery_s": 1.0}),
        ({}, {"delivery_s": 8.5}),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 12.0, "ended_s": 13.0},
            {"queue_s": 1.5, "prefill_s": 7.0},
        ),
    ],
)
def test_parts_add_up(times: dict[str, Any], parts: dict[str, float]) -> None:
    told = make(**times).timings()
    assert told.pop("wall_s") == 9.0 and sum(told.values()) == pytest.approx(9.0)
    assert {name: seconds for name, seconds in told.items() if seconds} == {"admission_s": 0.5, **parts}


@pytest.mark.parametrize(
    ("since_s", "until_s", "waited_s", "late_s"),
    [(5.0, 6.0, 1.0, 0.0), (8.5, 9.5, 1.0, 0.5), (9.25, 9.5, 0.25, 0.25)],
)
def test_a_slow_reader_is_a_part_once_the_engine_is_done(
    monkeypatch: pytest.MonkeyPatch, since_s: float, until_s: float, waited_s: float, late_s: float
) -> None:
    now = since_s
    monkeypatch.setattr(time, "monotonic", lambda: now)
    account = make(first_scheduled_s=3.0, first_token_s=4.0, ended_s=9.0)
    account.begin_sending()
    now = until_s
    account.end_sending()
    told = account.explain()
    assert told["waited_for_reader_s"] == waited_s and told["parts"]["slow_reader_s"] == late_s
    assert told["parts"]["delivery_s"] == 1.0 - late_s
    assert sum(told["parts"].values()) == pytest.approx(told["wall_s"])


@pytest.mark.parametrize(
    ("times", "where"),
    [
        ({}, "queue_s"),
        ({"form": FORM}, "grammar_s"),
        ({"form": FORM, "compiled_s": 3.0}, "queue_s"),
        ({"first_scheduled_s": 3.0}, "prefill_s"),
        ({"first_scheduled_s": 3.0, "first_token_s": 4.0}, "decode_s"),
        ({"first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 5.0}, "delivery_s"),
    ],
)
def test_what_runs_is_somewhere(times: dict[str, Any], where: str) -> None:
    account = make(None, **times)
    told = account.explain()
    assert told["state"] == "running"
    assert sum(told["parts"].values()) == pytest.approx(told["wall_s"])
    assert max(told["parts"], key=told["parts"].get) == where


def test_of_several_prompts_the_first_begins_and_the_last_ends() -> None:
    account = make(first_scheduled_s=3.0, first_token_s=6.0, ended_s=7.0)
    account.requests += make(first_scheduled_s=4.0, first_token_s=5.0, ended_s=9.0).requests
    told = account.timings()
    assert {name: seconds for name, seconds in told.items() if seconds} == {
        "wall_s": 9.0,
        "admission_s": 0.5,
        "queue_s": 1.5,
        "prefill_s": 2.0,
        "decode_s": 4.0,
        "delivery_s": 1.0,
    }
    account.requests[0].times.restarts_s, account.requests[1].times.restarts_s = 3.0, 1.0
    assert account.timings()["restart_s"] == 3.0
    # while one runs, the engine's work is not done
    account.requests[0].is_over, account.answered_s = False, None
    assert account.timings()["delivery_s"] == 0.0


def test_one_that_is_over_closes_no_other_of_its_name() -> None:
    accounts, first, second = Accounts(), make(), make()
    accounts.open(first)
    accounts.open(second)
    accounts.close(first)
    assert accounts.is_open("a")
    accounts.close(second)
    assert not accounts.is_open("a")


def test_the_last_ones_are_kept() -> None:
    accounts = Accounts()
    for i in range(MAX_KEPT + 2):
        account = make()
        account.request_id = str(i)
        accounts.open(account)
        assert accounts.is_open(str(i))
        accounts.close(account)
    assert accounts.explain("0") is None and accounts.explain("1") is None
    assert accounts.explain("2") is not None and not accounts.is_open("2")
