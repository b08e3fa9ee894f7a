"""Accounts by themselves: parts add up, whatever happened to a request."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.api.admission import Submission
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.params import SamplingParams
from albireo.server.accounts import MAX_KEPT, Account, Accounts


def make(answered_s: float | None = 10.0, **times: Any) -> Account:
    tracked = Tracked.new(0, "a", Submission(None, [1], SamplingParams(seed=1)), 0, Inbox(), 1.0, None)
    for name, value in times.items():
        setattr(tracked.times, name, value)
    return Account("a", "/v1/completions", 1.0, 1.5, 0, 0, [tracked], answered_s)


@pytest.mark.parametrize(
    ("times", "parts"),
    [
        (
            {"first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 9.0},
            {"queue_s": 1.5, "prefill_s": 1.0, "decode_s": 5.0, "restart_s": 0.0, "delivery_s": 1.0},
        ),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 4.0, "ended_s": 9.0, "restarts_s": 2.0},
            {"queue_s": 1.5, "prefill_s": 1.0, "decode_s": 3.0, "restart_s": 2.0, "delivery_s": 1.0},
        ),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 8.0, "ended_s": 9.0, "restarts_s": 3.0},
            {"queue_s": 1.5, "prefill_s": 3.0, "decode_s": 0.0, "restart_s": 3.0, "delivery_s": 1.0},
        ),
        (
            {"ended_s": 9.0},
            {"queue_s": 7.5, "prefill_s": 0.0, "decode_s": 0.0, "restart_s": 0.0, "delivery_s": 1.0},
        ),
        ({}, {"queue_s": 0.0, "prefill_s": 0.0, "decode_s": 0.0, "restart_s": 0.0, "delivery_s": 8.5}),
        (
            {"first_scheduled_s": 3.0, "first_token_s": 12.0, "ended_s": 13.0},
            {"queue_s": 1.5, "prefill_s": 7.0, "decode_s": 0.0, "restart_s": 0.0, "delivery_s": 0.0},
        ),
    ],
)
def test_parts_add_up(times: dict[str, float], parts: dict[str, float]) -> None:
    account = make(**times)
    assert account.parts() == {"admission_s": 0.5, **parts}
    assert sum(account.parts().values()) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("times", "where"),
    [
        ({}, "queue_s"),
        ({"first_scheduled_s": 3.0}, "prefill_s"),
        ({"first_scheduled_s": 3.0, "first_token_s": 4.0}, "decode_s"),
    ],
)
def test_what_runs_is_somewhere(times: dict[str, float], where: str) -> None:
    account = make(None, **times)
    told = account.explain()
    assert told["state"] == "running"
    assert sum(told["parts"].values()) == pytest.approx(told["wall_s"], abs=0.05)
    assert max(told["parts"], key=told["parts"].get) == where


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
