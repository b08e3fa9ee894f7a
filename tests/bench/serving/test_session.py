"""Before the load: a server that is not ready yet, and when requests are to be sent."""

from __future__ import annotations

import asyncio

import pytest

from albireo.bench.serving.outcome import Outcome
from albireo.bench.serving.request import ServeRequest
from albireo.bench.serving.session import Traffic, wait_until_ready
from albireo.errors import ConfigError, ResourceError


def wait(send, timeout_s):
    """Returns what was slept, in time that passes by sleeping only."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    asyncio.run(wait_until_ready(send, timeout_s, lambda: sum(slept), sleep))
    return sum(slept)


def answers(*errors):
    rest = iter(errors)

    async def send():
        return Outcome(error=next(rest))

    return send


def test_a_server_is_tried_until_it_answers():
    assert wait(answers("starting", "starting", "starting", ""), 60.0) == pytest.approx(1.5)
    assert wait(answers(""), 0.1) == 0


def test_the_last_reason_is_told_in_the_end():
    with pytest.raises(ResourceError, match=r"not ready within 1 s: second"):
        wait(answers("first", "second", ""), 1.0)


def test_a_server_that_never_answers():
    async def send():
        await asyncio.sleep(60)

    with pytest.raises(ResourceError, match=r"not ready within 0\.05 s: it does not answer"):
        wait(send, 0.05)


def test_times_of_a_trace_go_before_the_rate():
    traffic = Traffic(request_rate=5.0)
    assert traffic.offsets([ServeRequest("a", 1, 1, 0.0), ServeRequest("b", 1, 1, 7.5)]) == [0.0, 7.5]
    assert traffic.offsets([ServeRequest("a", 1, 1), ServeRequest("b", 1, 1)])[-1] == pytest.approx(0.4)


@pytest.mark.parametrize(
    "fields", [{"max_concurrency": 0}, {"num_warmups": -1}, {"ready_timeout_s": -1.0}, {"request_rate": 0.0}]
)
def test_refusals(fields):
    with pytest.raises(ConfigError):
        Traffic(**fields)
