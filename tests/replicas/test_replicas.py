"""Requests that move between engines, over played processes: who has what, and that no token is another one."""

from __future__ import annotations

import asyncio

import pytest

from albireo.api.requests.submission import Submission
from albireo.engine_process.messages import Abort, AdapterLoaded, Add, Careful, DropAdapter, Failed, Stepped
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.errors import EngineError, InvalidParams, OutOfMemory
from albireo.image_input import ImageInput, Tile
from albireo.params import SamplingParams
from replicas.played_engines import CRASH, KILL, Bench, expected, is_whole, played, restarted, settled


def test_those_of_a_killed_process_go_on_at_once_elsewhere() -> None:
    async def play(bench: Bench) -> None:
        a, b, c = (bench.add([i, i + 1]) for i in range(3))
        assert [t.replica for t in (a, b, c)] == [0, 1, 0]
        bench.processes[0].step()
        bench.processes[0].step()
        bench.processes[0].die(KILL, a, c)
        assert [t.replica for t in (a, b, c)] == [1, 1, 1] and [t.num_moves for t in (a, b, c)] == [1, 0, 1]
        (add,) = (m for m in bench.processes[1].heard if isinstance(m, Add) and m.key == a.ticket)
        assert add.earlier == [expected(a)[:2]]
        assert bench.all.health.state == "ready" and bench.all.health.num_restarts == 1
        bench.run()
        assert all(map(is_whole, (a, b, c))) and {*bench.over} == {a, b, c} and len(bench.over) == 3

    played(play)


def test_what_the_old_engine_still_says_is_not_heard() -> None:
    """A request moves away and comes back while a step of before is on its way: its token is counted once."""

    async def play(bench: Bench) -> None:
        tracked = bench.add([1, 2])
        first, second = bench.processes
        first.obey()
        late = first.compute()
        bench.all._move(tracked)
        assert tracked.replica == 1
        second.step()
        bench.all._move(tracked)
        assert tracked.replica == 0
        first.say(late)
        assert tracked.num_output_tokens == 1
        bench.run()
        assert is_whole(tracked)

    played(play)


def test_a_step_is_heard_of_those_behind_one_that_is_gone() -> None:
    async def play(bench: Bench) -> None:
        gone, other = bench.add([1]), bench.add([2])
        (process,) = bench.processes
        process.obey()
        late = process.compute()
        bench.all.abort(gone)
        process.say(late)
        assert (gone.num_output_tokens, other.num_output_tokens) == (0, 1)
        bench.run()
        assert is_whole(other)

    played(play, num=1)


def test_who_may_have_crashed_a_process_is_not_given_to_another() -> None:
    async def play(bench: Bench) -> None:
        computed, other, waiting = bench.add([1]), bench.add([2]), bench.add([3])
        assert [t.replica for t in (computed, other, waiting)] == [0, 1, 0]
        bench.processes[0].die(CRASH, computed)
        assert [t.replica for t in (computed, other, waiting)] == [0, 1, 1]
        process = await restarted(bench, 0)
        process.is_ready()
        process.obey()
        process.die(CRASH, computed)
        assert computed.is_over and computed.continuations[0].finish_reason == "error"
        await restarted(bench, 0)
        bench.processes[0].is_ready()
        bench.run()
        assert is_whole(other) and is_whole(waiting) and bench.all.engines[1].health.num_restarts == 0

    played(play)


def test_care_is_taken_until_those_that_were_computed_get_on_however_long_the_line_is() -> None:
    async def play(bench: Bench) -> None:
        computed, *line = [bench.add([i]) for i in range(9)]
        bench.processes[0].die(CRASH, computed, line[0])
        process = await restarted(bench, 0)
        process.is_ready()
        assert [each.is_on for each in process.heard if isinstance(each, Careful)] == [True]
        process.step(num_seats=1)
        assert not any(isinstance(each, Careful) for each in process.heard)
        process.step(num_seats=2)
        assert [each.is_on for each in process.heard if isinstance(each, Careful)] == [False]
        assert [each.num_output_tokens for each in line] == [1] + 7 * [0]
        bench.run()
        assert all(map(is_whole, (computed, *line)))

    played(play, num=1)


def test_who_is_not_run_again_is_not_waited_for() -> None:
    async def play(bench: Bench) -> None:
        killer, other = bench.add([1]), bench.add([2])
        bench.processes[0].die(CRASH, killer)
        (await restarted(bench, 0)).is_ready()
        bench.processes[0].die(CRASH, killer)
        assert killer.continuations[0].finish_reason == "error" and not other.is_over
        process = await restarted(bench, 0)
        process.is_ready()
        assert [each.is_on for each in process.heard if isinstance(each, Careful)] == [True, False]
        bench.run()
        assert is_whole(other)

    played(play, num=1)


def test_a_process_that_is_being_loaded_is_given_each_request_once_it_is_there() -> None:
    async def play(bench: Bench) -> None:
        before = bench.add([1])
        bench.processes[0].die(KILL)
        process = await restarted(bench, 0)
        during = bench.add([2])
        assert not any(isinstance(each, Add) for each in process.heard)
        process.is_ready()
        assert [each.key for each in process.heard if isinstance(each, Add)] == [before.ticket, during.ticket]
        assert before.times.restarts_s > 0
        bench.run()
        assert is_whole(before) and is_whole(during)

    played(play, num=1)


def test_a_kill_is_passed_on_once_only() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        bench.processes[0].die(KILL, tracked)
        assert tracked.replica == 1
        (await restarted(bench, 0)).is_ready()
        bench.processes[1].die(KILL, tracked)
        assert tracked.replica == 1, "two in a row may be its doing"
        assert bench.add([2]).replica == 0
        (await restarted(bench, 1)).is_ready()
        bench.run()
        assert is_whole(tracked)

    played(play)


def test_without_any_process_requests_wait_for_whichever_is_first() -> None:
    async def play(bench: Bench) -> None:
        before = bench.add([1])
        for process in bench.processes:
            process.die(KILL)
        between = bench.add([2])
        assert bench.all.health.state == "restarting" and bench.all.health.num_restarts == 2
        (await restarted(bench, 1)).is_ready()
        assert (before.replica, between.replica) == (1, 1)
        bench.run()
        assert is_whole(before) and is_whole(between)

    played(play)


def test_what_comes_before_any_engine_is_ready_waits_for_the_first() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        bench.processes[1].is_ready()
        assert tracked.replica == 1
        bench.run()
        assert is_whole(tracked)

    played(play, ready=0)


def test_who_is_over_is_not_ended_again() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        bench.run()
        assert await tracked.inbox.wait() == [tracked]
        ended_s = tracked.times.ended_s
        bench.all.abort(tracked)
        assert is_whole(tracked) and tracked.times.ended_s == ended_s
        assert bench.over == [tracked]

    played(play)


def test_an_idle_engine_takes_the_end_of_a_line() -> None:
    async def play(bench: Bench) -> None:
        bench.processes[1].die(KILL)
        line = [bench.add([i]) for i in range(8)]
        (await restarted(bench, 1)).is_ready()
        bench.processes[0].step(num_seats=2)
        await settled()
        assert [t.replica for t in line] == [0] * 5 + [1] * 3 and all(t.num_moves == 0 for t in line[:5])
        bench.run()
        assert all(map(is_whole, line))

    played(play)


def test_a_line_stays_where_it_is_while_all_have_work() -> None:
    async def play(bench: Bench) -> None:
        line = [bench.add([i]) for i in range(8)]
        for _ in range(3):
            for process in bench.processes:
                process.step(num_seats=1)
            await settled()
        assert [tracked.num_moves for tracked in line] == [0] * 8
        bench.run()
        assert all(map(is_whole, line))

    played(play)


def test_what_a_step_brought_is_given_out_before_a_line_is_cut() -> None:
    """The step that tells of a line brings the first tokens of those at its end, which metrics have counted."""

    async def play(bench: Bench) -> None:
        bench.processes[1].die(KILL)
        line = [bench.add([i]) for i in range(8)]
        (await restarted(bench, 1)).is_ready()
        bench.processes[0].obey()
        step = bench.processes[0].compute(num_seats=8)
        step.num_waiting = 4
        bench.processes[0].say(step)
        await settled()
        bench.run()
        assert all(map(is_whole, line))
        assert bench.num_counted == sum(t.num_output_tokens for t in line)

    played(play)


def test_the_least_urgent_leave_a_line_by_priority() -> None:
    async def play(bench: Bench) -> None:
        for process in bench.processes:
            process.is_ready(engine={"scheduling_policy": "priority"})
        bench.processes[1].die(KILL)
        line = [bench.add([i], priority=-i) for i in range(6)]
        (await restarted(bench, 1)).is_ready()
        bench.processes[0].obey()
        bench.processes[0].say(Stepped([], 0.0, 0.0, 0, 0, 2, 4, 0.0, 0, 0, 0))
        await settled()
        assert [t.replica for t in line] == [1, 1, 0, 0, 0, 0]

    played(play, ready=0)


def test_prompts_follow_their_prefix() -> None:
    async def play(bench: Bench) -> None:
        prompt = list(range(64))
        first, other = bench.add(prompt), bench.add([90])
        bench.run()
        assert (first.replica, other.replica) == (0, 1)
        held = [bench.add([*prompt, i]) for i in range(2)]
        assert [t.replica for t in held] == [0, 1], "four blocks are not worth a sequence"
        assert held[0].num_pending == 1 and held[1].num_pending == 65
        bench.run()
        again = bench.add([*prompt, 5], priority=1)
        salted = bench.all.submit(
            "s", Submission(None, prompt, SamplingParams(max_tokens=2), "salt"), Inbox(), arrival_s=0.0
        )
        assert again.num_pending == 1 and salted.num_pending == 64
        bench.run()

    played(play)


def test_the_next_turn_follows_the_answer_until_its_engine_dies() -> None:
    async def play(bench: Bench) -> None:
        first = bench.add(list(range(10)), max_tokens=40)
        bench.run()
        turn = [*range(10), *expected(first)]
        assert bench.add(turn).num_pending == 50 - 48
        bench.run()
        bench.processes[first.replica].die(KILL)
        (await restarted(bench, first.replica)).is_ready()
        assert bench.add(turn).num_pending == 50
        bench.run()

    played(play)


def test_requests_are_the_same_whatever_the_number_of_engines() -> None:
    seeds = []
    for num in (1, 3):

        async def play(bench: Bench) -> None:
            found = [bench.add([i], seed=None) for i in range(4)]
            seeds.append([t.submission.params.seed for t in found])
            bench.run()
            assert all(map(is_whole, found))

        played(play, num)
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 4


def test_one_that_cannot_start_leaves_the_work_to_the_others() -> None:
    async def play(bench: Bench) -> None:
        bench.processes[0].say(Failed("OutOfMemory", "no room"))
        assert bench.all.failure is None and bench.all.health.state == "loading"
        bench.processes[1].is_ready()
        assert (await bench.all.wait_until_ready()).num_blocks == 65
        tracked = bench.add([1])
        assert tracked.replica == 1 and isinstance(bench.all.engines[0].health.failure, OutOfMemory)
        bench.run()
        assert is_whole(tracked)

    played(play, ready=0)


def test_where_one_is_given_up_its_requests_wait_for_another_that_is_being_started() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1, 2])
        bench.processes[0].step()
        bench.processes[1].die(CRASH)
        other = await restarted(bench, 1)
        for _ in range(3):
            bench.processes[0].die(CRASH)
            await restarted(bench, 0)
        assert tracked.replica == 0
        bench.processes[0].die(CRASH)
        assert bench.all.engines[0].health.state == "failed" and bench.all.failure is None
        assert tracked.replica == 1 and not tracked.is_over
        other.is_ready()
        bench.run()
        assert is_whole(tracked) and len(bench.over) == 1

    played(play)


def test_a_process_that_was_being_loaded_is_not_brought_back_by_what_it_still_says() -> None:
    """Its word that it is ready was on its way as it was ended."""

    async def play(bench: Bench) -> None:
        await bench.all.close()
        (process,) = bench.processes
        process.is_ready()
        process.die(KILL)
        await settled()
        assert bench.processes == [process] and bench.all.health.state == "closed"
        with pytest.raises(EngineError, match="shutting down"):
            bench.add([1])
        assert not bench.all.requests

    played(play, num=1, ready=0)


def test_what_was_computed_as_all_ends_is_heard() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1, 2], max_tokens=1)
        (process,) = bench.processes
        process.obey()
        late = process.compute()

        async def ended() -> None:
            process.say(late)

        process.ended = ended  # type: ignore[method-assign]
        await bench.all.close()
        assert is_whole(tracked) and tracked.continuations[0].finish_reason == "length"

    played(play, num=1)


def test_one_that_is_not_to_run_is_not_started_again() -> None:
    async def play(bench: Bench) -> None:
        (process,) = bench.processes
        process.die(CRASH)
        bench.all.fail(EngineError("its tokenizer cannot be read"))
        await settled()
        assert bench.processes == [process] and bench.all.health.state == "failed"
        process.is_ready()
        assert bench.all.health.state == "failed" and "tokenizer" in str(bench.all.failure)

    played(play, num=1)


def test_an_adapter_that_is_being_loaded_is_told_of_as_all_ends() -> None:
    async def play(bench: Bench) -> None:
        loading = asyncio.create_task(bench.all.load_adapter("there"))
        await settled()
        await bench.all.close()
        bench.processes[0].die(KILL)
        with pytest.raises(EngineError, match="ended while the adapter was loaded"):
            await asyncio.wait_for(loading, 5)

    played(play, num=1)


def test_an_adapter_goes_with_the_last_request_that_has_it_however_that_ends() -> None:
    async def play(bench: Bench) -> None:
        (process,) = bench.processes
        loading = asyncio.create_task(bench.all.load_adapter("there"))
        await settled()
        process.say(AdapterLoaded(1, rank=4))
        await loading
        submission = Submission(None, [1, 2], SamplingParams(max_tokens=6, seed=1), adapter=1)
        tracked = bench.all.submit("r", submission, Inbox(), arrival_s=0.0)
        bench.all.drop_adapter(1)
        assert not any(isinstance(each, DropAdapter) for each in process.heard)
        bench.all.abort(tracked)
        assert process.heard[-2:] == [Abort(tracked.ticket), DropAdapter(1)], "it is nobody's by then"

    played(play, num=1)


def test_pictures_that_no_message_has_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to an engine they would end its process, and the next."""

    async def play(bench: Bench) -> None:
        tile = Tile(2, 2, bytes(12), 1)
        images = (ImageInput(bytes(32), (tile, tile), ((0, 2),)), ImageInput(bytes(32), (tile,), ((2, 3),)))
        params = SamplingParams(max_tokens=6, seed=1)

        def submit(given: tuple[ImageInput, ...]) -> Tracked:
            return bench.all.submit("r", Submission(None, [1] * 9, params, images=given), Inbox(), arrival_s=0.0)

        with pytest.raises(InvalidParams, match="images, sounds and videos"):
            submit(images)
        assert not bench.all.requests
        tracked = submit(images[:1])
        bench.run()
        assert is_whole(tracked)

    monkeypatch.setattr("albireo.replicas.replicas.MAX_MEDIA_BYTES", 30)
    played(play)


def test_with_none_that_can_start_there_is_a_reason() -> None:
    async def play(bench: Bench) -> None:
        waiting = asyncio.create_task(bench.all.wait_until_ready())
        for process in bench.processes:
            await settled()
            process.say(Failed("OutOfMemory", "no room"))
        with pytest.raises(OutOfMemory, match="no room"):
            await waiting
        assert isinstance(await bench.all.wait_until_failed(), OutOfMemory)
        with pytest.raises(EngineError):
            bench.add([1])

    played(play, ready=0)


def test_one_with_less_room_than_the_first_is_not_used() -> None:
    async def play(bench: Bench) -> None:
        bench.processes[1].is_ready(max_model_len=256)
        failure = bench.all.engines[1].health.failure
        assert failure is not None and "256 tokens of context" in str(failure) and bench.processes[1].num_killed == 1
        assert [bench.add([i]).replica for i in range(2)] == [0, 0]
        bench.run()

    played(play, ready=1)


def test_the_load_is_what_is_not_over() -> None:
    async def play(bench: Bench) -> None:
        tracked = [bench.add([1, 2, 3]) for _ in range(3)]
        assert [t.num_pending for t in tracked] == [3, 3, 3]
        assert bench.all._standing(0).num_sequences == 2 and bench.all._standing(0).num_pending == 6
        bench.processes[0].step()
        assert bench.all._standing(0).num_pending == 0
        bench.all.abort(tracked[0])
        bench.all.abort(tracked[0])
        assert bench.all._standing(0).num_sequences == 1 and bench.over == [tracked[0]]
        bench.run()
        assert bench.all._standing(0) == bench.all._standing(1).__class__(0, 0, 0, 4)

    played(play)
