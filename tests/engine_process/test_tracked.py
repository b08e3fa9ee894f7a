"""What the client keeps of a request, and how it wakes its reader."""

from __future__ import annotations

import asyncio

import pytest

from albireo.api.requests.submission import Submission
from albireo.engine_process.messages import Progress, Update
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.params import SamplingParams


def make(inbox: Inbox, key: int = 0, **params: object) -> Tracked:
    submission = Submission(None, [1, 2], SamplingParams(**{"seed": 1, "max_tokens": 9, **params}))  # type: ignore[arg-type]
    return Tracked.new(key, str(key), submission, 0, inbox, 0.5, None)


def test_what_another_process_is_told() -> None:
    tracked = make(Inbox(), n=3)
    assert tracked.add_message().earlier is None
    for index, tokens in ((0, [5]), (1, [6]), (2, [7]), (0, [8])):
        tracked.take(Update(0, index, tokens), 1.0)
    tracked.take(Update(0, 2, [9], None, "stop", 9), 2.0)
    assert tracked.add_message().earlier == [[5, 8], [6], None]
    assert not tracked.is_over and tracked.num_ended == 1


def test_a_search_gets_on_without_tokens_and_begins_anew() -> None:
    tracked = make(Inbox(), n=2)
    far = []
    for num_rounds in (3, 2, 4):  # in three processes
        assert tracked.add_message().earlier is None
        for _ in range(num_rounds):
            tracked.take(Update(0, 0, []), 1.0)
        far.append(tracked.how_far)
    assert far == [3, 3, 4] and tracked.times.last_token_s == 1.0


def test_only_what_is_a_round_counts_as_one() -> None:
    tracked = make(Inbox())
    tracked.take(Update(0, 0, [5, 6]), 1.0)
    tracked.take(Update(0, 0, [], None, "abort"), 2.0)
    assert (tracked.num_rounds, tracked.how_far, tracked.times.last_token_s) == (0, 2, 1.0)


def test_a_request_that_never_ran_wakes_its_reader_and_has_no_numbers() -> None:
    async def read() -> None:
        inbox = Inbox()
        tracked = make(inbox, key=3)
        waiting = asyncio.ensure_future(inbox.wait())
        await asyncio.sleep(0)
        tracked.fail(ValueError("no"))
        assert await waiting == [tracked]
        assert tracked.is_over and tracked.has_failed and tracked.times.ended_s is not None
        assert (tracked.num_cached_tokens, tracked.num_preemptions, tracked.num_counted, tracked.ticket) == (0, 0, 0, 3)

    asyncio.run(read())


def test_tokens_after_an_end_are_not_taken() -> None:
    tracked = make(Inbox())
    tracked.take(Update(0, 0, [5], None, "length"), 1.0)
    assert tracked.is_over
    tracked.take(Update(0, 0, [6]), 2.0)
    assert tracked.continuations[0].token_ids == [5] and tracked.times.last_token_s == 1.0


def test_the_first_process_tells_when_it_began() -> None:
    tracked = make(Inbox())
    tracked.take(Update(0, 0, [5], None, None, None, Progress(1.0, 2.0, 16, 1, 3, 0.5, 0.75, [])), 2.0)
    tracked.take(Update(0, 0, [6], None, "length", None, Progress(7.0, None, 0, 0, 0, 0.25, 6.0, None)), 9.0)
    times = tracked.times
    assert (times.first_scheduled_s, times.first_token_s, times.last_token_s) == (1.0, 2.0, 9.0)
    assert (times.compiled_s, times.preempted_s, tracked.num_prefill_chunks) == (0.75, 0.5, 3)
    assert (tracked.num_cached_tokens, tracked.num_preemptions, tracked.prompt_logprobs) == (16, 1, [])


def test_a_reader_is_woken_once_for_all_that_came() -> None:
    async def read() -> None:
        inbox = Inbox()
        a, b = make(inbox, 0), make(inbox, 1)
        waiting = asyncio.create_task(inbox.wait())
        await asyncio.sleep(0)
        a.take(Update(0, 0, [5]), 1.0)
        a.take(Update(0, 0, [6]), 1.0)
        b.take(Update(1, 0, [7]), 1.0)
        assert await waiting == [a, b]
        a.take(Update(0, 0, [8]), 1.0)
        assert await inbox.wait() == [a]

    asyncio.run(read())


def test_who_wants_ends_only_sleeps_until_then() -> None:
    async def read() -> None:
        inbox = Inbox(wants_ends_only=True)
        a = make(inbox)
        waiting = asyncio.create_task(inbox.wait())
        await asyncio.sleep(0)
        a.take(Update(0, 0, [5]), 1.0)
        await asyncio.sleep(0)
        assert not waiting.done()
        a.take(Update(0, 0, [6], None, "length"), 1.0)
        assert await waiting == [a]

    asyncio.run(read())


def test_a_failure_is_raised_from_then_on() -> None:
    async def read() -> None:
        inbox = Inbox()
        waiting = asyncio.create_task(inbox.wait())
        await asyncio.sleep(0)
        inbox.fail(TimeoutError("late"))
        inbox.fail(ValueError("later"))
        for wait in (waiting, inbox.wait()):
            with pytest.raises(TimeoutError, match="late"):
                await wait

    asyncio.run(read())
