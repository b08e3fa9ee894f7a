"""Engines without a process until a request comes, over played processes."""

from __future__ import annotations

import asyncio
import errno

import pytest

from albireo.engine_process.messages import Add, Failed, ForgetPrefixes, PrefixesForgotten, Start
from albireo.errors import EngineError
from replicas.played_engines import CRASH, KILL, Bench, is_whole, played, restarted, settled


async def asleep(bench: Bench) -> None:
    """Send all engines to sleep; their processes end as they are told to."""
    await bench.all.sleep()
    assert bench.all.is_asleep and bench.all.health.state == "asleep"
    for process in bench.processes:
        assert process.num_killed == 1
        process.die(KILL)
    await settled()
    assert [engine.pid for engine in bench.all.engines] == [None] * len(bench.processes)


@pytest.mark.parametrize("num", [1, 2])
def test_a_request_wakes_them_all_and_is_no_recovery(num: int) -> None:
    async def play(bench: Bench) -> None:
        before = bench.add([1])
        bench.run()
        await asleep(bench)
        old = list(bench.processes)
        tracked = bench.add([5, 6])
        assert bench.all.health.state == "waking" and not bench.all.is_asleep
        await settled()
        for process, gone in zip(bench.processes, old, strict=True):
            assert process is not gone
            assert [type(each) for each in process.heard] == [Start]
            process.is_ready()
        heard = [type(each) for process in bench.processes for each in process.heard]
        assert (heard.count(Start), heard.count(Add), len(heard)) == (num, 1, num + 1), "nothing is done with care"
        bench.run()
        assert is_whole(before) and is_whole(tracked)
        assert bench.all.health.num_restarts == tracked.num_restarts == 0 and tracked.times.restarts_s == 0

    played(play, num)


def test_what_has_work_does_not_sleep() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        assert bench.all.rest_s() == 0
        with pytest.raises(EngineError, match="1 requests"):
            await bench.all.sleep()
        assert [process.num_killed for process in bench.processes] == [0, 0]
        bench.run()
        assert is_whole(tracked) and bench.all.rest_s() > 0
        bench.processes[1].die(KILL)
        assert bench.all.rest_s() == 0
        with pytest.raises(EngineError, match="being started"):
            await bench.all.sleep()
        assert bench.processes[0].num_killed == 0
        (await restarted(bench, 1)).is_ready()
        await bench.all.sleep()

    played(play)


def test_a_request_that_comes_while_the_process_ends_waits_for_the_next() -> None:
    async def play(bench: Bench) -> None:
        await bench.all.sleep()
        (old,) = bench.processes
        tracked = bench.add([1])
        await settled()
        assert bench.processes == [old], "the old one still has the memory"
        old.die(KILL)
        (await restarted(bench, 0)).is_ready()
        bench.run()
        assert is_whole(tracked) and bench.all.health.num_restarts == 0

    played(play, num=1)


def test_a_death_while_waking_is_one_like_any_other() -> None:
    async def play(bench: Bench) -> None:
        await asleep(bench)
        tracked = bench.add([1])
        await settled()
        bench.processes[0].die(KILL)
        assert bench.all.health.state == "restarting" and bench.all.health.num_restarts == 1
        (await restarted(bench, 0)).is_ready()
        bench.run()
        assert is_whole(tracked) and tracked.num_restarts == 1

    played(play, num=1)


def test_where_waking_fails_its_requests_are_told_and_the_next_one_tries_again() -> None:
    async def play(bench: Bench) -> None:
        await asleep(bench)
        waking = asyncio.create_task(bench.all.wake())
        tracked = bench.add([1])
        await settled()
        (process,) = bench.processes
        process.say(Failed("OutOfMemory", "12 GiB are needed, 3 are free"))
        with pytest.raises(EngineError, match="could not be started"):
            await waking
        assert tracked.is_over and "could not be started" in str(tracked.error)
        assert bench.all.health.state == "asleep" and bench.all.failure is None
        process.die(0)
        again = bench.add([2])
        (await restarted(bench, 0)).is_ready()
        bench.run()
        assert is_whole(again) and len(bench.over) == 2

    played(play, num=1)


def test_where_no_process_can_be_had_for_waking_the_next_request_tries_again() -> None:
    async def play(bench: Bench) -> None:
        await asleep(bench)
        bench.refusal = OSError(errno.EMFILE, "Too many open files")
        refused = bench.add([1])
        await settled()
        assert refused.is_over and "could not be started" in str(refused.error)
        assert bench.all.health.state == "asleep" and bench.all.failure is None
        await bench.all.sleep()
        bench.refusal = None
        tracked = bench.add([2])
        await settled()
        assert [type(each) for each in bench.processes[0].heard] == [Start]
        bench.processes[0].is_ready()
        bench.run()
        assert is_whole(tracked)

    played(play, num=1)


def test_where_waking_is_one_death_too_many_the_next_request_tries_again() -> None:
    async def play(bench: Bench) -> None:
        for _ in range(3):
            bench.processes[0].die(CRASH)
            await restarted(bench, 0)
        bench.processes[0].is_ready()
        await asleep(bench)
        refused = bench.add([1])
        await settled()
        bench.processes[0].die(CRASH)
        assert refused.is_over and bench.all.health.state == "asleep"
        tracked = bench.add([2])
        (await restarted(bench, 0)).is_ready()
        bench.run()
        assert is_whole(tracked)

    played(play, num=1, ready=0)


def test_who_waits_for_an_engine_is_told_when_all_is_closed() -> None:
    async def play(bench: Bench) -> None:
        await asleep(bench)
        waking = asyncio.create_task(bench.all.wake())
        await settled()
        await bench.all.close()
        with pytest.raises(EngineError, match="shutting down"):
            await asyncio.wait_for(waking, 5)

    async def load(bench: Bench) -> None:
        loading = asyncio.create_task(bench.all.wait_until_ready())
        await settled()
        await bench.all.close()
        with pytest.raises(EngineError, match="shutting down"):
            await asyncio.wait_for(loading, 5)

    played(play, num=1)
    played(load, num=2, ready=0)


def test_sleeping_and_waking_twice_changes_nothing() -> None:
    async def play(bench: Bench) -> None:
        await bench.all.wake()
        await asleep(bench)
        await bench.all.sleep()
        waking = [asyncio.create_task(bench.all.wake()) for _ in range(2)]
        await settled()
        for process in bench.processes:
            process.is_ready()
        await asyncio.gather(*waking)
        tracked = bench.add([3])
        bench.run()
        assert is_whole(tracked)

    played(play)


def test_prefixes_are_forgotten_once_every_engine_says_so() -> None:
    async def play(bench: Bench) -> None:
        tracked = bench.add([1])
        forgetting = asyncio.create_task(bench.all.forget_prefixes(True))
        await settled()
        for process in bench.processes:
            assert [each for each in process.heard if isinstance(each, ForgetPrefixes)] == [ForgetPrefixes(True)]
        bench.processes[0].say(PrefixesForgotten())
        await settled()
        assert not forgetting.done()
        bench.processes[1].say(PrefixesForgotten())
        await forgetting
        bench.run()
        assert is_whole(tracked)

    played(play, 2)


def test_an_engine_that_dies_has_forgotten_all_but_files() -> None:
    async def play(bench: Bench) -> None:
        plain, files = (asyncio.create_task(bench.all.forget_prefixes(with_files)) for with_files in (False, True))
        await settled()
        bench.processes[0].die(KILL)
        await plain
        with pytest.raises(EngineError, match="files stay"):
            await files
        await bench.all.forget_prefixes(False)
        with pytest.raises(EngineError, match="files stay"):
            await bench.all.forget_prefixes(True)

    played(play, 1)
