"""Engines that begin nothing until they are told to go on, over played processes."""

from __future__ import annotations

import asyncio

import pytest

from albireo.api.requests.submission import Submission
from albireo.engine_process.messages import AdapterLoaded, Add, DropAdapter, LoadAdapter
from albireo.engine_process.tracked import Inbox
from albireo.errors import EngineError
from albireo.params import SamplingParams
from replicas.played_engines import KILL, Bench, is_whole, played, restarted, settled


@pytest.mark.parametrize("num", [1, 2])
def test_what_is_kept_goes_on_from_its_tokens(num: int) -> None:
    async def play(bench: Bench) -> None:
        first, second = bench.add([1]), bench.add([2])
        for process in bench.processes:
            process.step()
        tokens = [each.num_output_tokens for each in (first, second)]
        await bench.all.pause("keep")
        later = bench.add([3])
        for process in bench.processes:
            process.step()
        assert [each.num_output_tokens for each in (first, second, later)] == [*tokens, 0]
        assert (bench.all.is_paused, bench.all.num_held) == (True, 3)
        assert not any(process.running for process in bench.processes)
        bench.all.resume()
        added = [m for process in bench.processes for m in process.heard if isinstance(m, Add)]
        assert {each.key for each in added} == {first.ticket, second.ticket, later.ticket}
        bench.run()
        assert all(map(is_whole, (first, second, later))) and len(bench.over) == 3
        assert not bench.all.is_paused

    played(play, num)


def test_what_runs_may_be_finished_first() -> None:
    async def play(bench: Bench) -> None:
        running = bench.add([1])
        pausing = asyncio.create_task(bench.all.pause("wait"))
        await settled()
        held = bench.add([2])
        assert not pausing.done()
        while not running.is_over:
            bench.processes[0].step()
        assert await pausing
        assert is_whole(running) and held.num_output_tokens == 0
        bench.all.resume()
        bench.run()
        assert is_whole(held)

    played(play, 1)


def test_who_waits_for_the_rest_is_let_go_when_it_is_resumed_or_closed() -> None:
    async def play(bench: Bench) -> None:
        bench.add([1])
        for end in (bench.all.resume, lambda: asyncio.ensure_future(bench.all.close())):
            pausing = asyncio.create_task(bench.all.pause("wait"))
            await settled()
            assert not pausing.done()
            end()
            for process in bench.processes:
                process.step()
            assert await asyncio.wait_for(pausing, 10) == (end != bench.all.resume)

    played(play, 1)


def test_what_runs_may_be_ended() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        bench.processes[0].step()
        await bench.all.pause("abort")
        assert tracked.is_over and tracked.continuations[0].finish_reason == "abort"
        held = bench.add([2])
        bench.all.abort(held)
        assert bench.all.num_held == 0 and bench.over == [tracked, held]

    played(play, 1)


def test_a_process_that_dies_and_one_that_sleeps_change_nothing() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        bench.processes[0].step()
        await bench.all.pause("keep")
        bench.processes[0].die(KILL)
        process = await restarted(bench, 0)
        process.is_ready()
        process.step()
        assert tracked.num_output_tokens == 1
        await bench.all.sleep()
        assert bench.all.is_asleep, "what is held needs no process"
        process.die(KILL)
        bench.add([2])
        await settled()
        assert bench.all.is_asleep
        bench.all.resume()
        await settled()
        bench.processes[0].is_ready()
        bench.run()
        assert is_whole(tracked)

    played(play, 1)


def test_what_is_held_at_the_end_is_told() -> None:
    async def play(bench: Bench) -> None:
        await bench.all.pause("keep")
        held = bench.add([1])
        await bench.all.close()
        assert held.is_over and held.continuations[0].finish_reason == "error" and not bench.all.requests

    played(play, 1)


def test_what_is_held_ends_with_the_last_engine() -> None:
    """Of several models the server goes on, and nobody would resume it."""

    async def play(bench: Bench) -> None:
        await bench.all.pause("keep")
        held = bench.add([1])
        bench.all.engines[0].fail(EngineError("it has had enough"))
        assert not held.is_over, "the other one may have it"
        bench.all.engines[1].fail(EngineError("it has had enough"))
        assert held.is_over and held.continuations[0].finish_reason == "error" and not bench.all.requests
        bench.all.resume()

    played(play, 2)


@pytest.mark.parametrize("is_aborted", [False, True])
def test_adapters_of_what_is_held_are_kept(is_aborted: bool) -> None:
    async def play(bench: Bench) -> None:
        process = bench.processes[0]
        loading = asyncio.create_task(bench.all.load_adapter("/a"))
        await settled()
        process.say(AdapterLoaded(1))
        await loading
        params = SamplingParams(max_tokens=3, seed=1)
        submissions = [Submission(None, [each], params, adapter=1) for each in (1, 2)]
        first = bench.all.submit("first", submissions[0], Inbox(), arrival_s=0.0)
        process.step()
        await bench.all.pause("keep")
        second = bench.all.submit("second", submissions[1], Inbox(), arrival_s=0.0)
        bench.all.drop_adapter(1)
        bench.all.abort(first)
        assert not any(isinstance(each, DropAdapter) for each in process.heard)
        if is_aborted:
            bench.all.abort(second)
            assert any(isinstance(each, DropAdapter) for each in process.heard)
            return
        process.die(KILL)
        process = await restarted(bench, 0)
        process.is_ready()
        assert any(isinstance(each, LoadAdapter) for each in process.heard)
        bench.all.resume()
        while not second.is_over:
            process.obey()
            process.say(process.compute())
        assert is_whole(second) and any(isinstance(each, DropAdapter) for each in process.heard)

    played(play, 1)
