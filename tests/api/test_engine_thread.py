"""Streams and the thread behind them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from albireo.api.driver import Driver
from albireo.api.engine_thread import EngineThread, Stream
from albireo.api.requests.submission import Submission
from albireo.errors import EngineError
from albireo.outputs import RequestOutput
from albireo.params import SamplingParams

PARAMS = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


def start(house: Any) -> EngineThread:
    loaded = house.loaded()
    return EngineThread(Driver(loaded.settings, loaded.execute, loaded.tokenizer))


def stream(house: Any, name: str) -> Stream:
    return Stream(name, Submission(name, house.tokenizer.encode(name), PARAMS), 0, 0.0)


async def end_of(subject: Stream) -> RequestOutput:
    while True:
        output = await asyncio.wait_for(subject.next(), 60)
        if subject.is_over:
            return output


def test_a_stream_keeps_the_newest_and_knows_its_end() -> None:
    async def main() -> None:
        subject = Stream("r", Submission(None, [1], PARAMS), 0, 0.0)
        subject.put(RequestOutput("r", None, [1]))
        subject.put(RequestOutput("r", None, [1], num_cached_tokens=1))
        assert (await subject.next()).num_cached_tokens == 1
        assert not subject.is_over
        subject.put(RequestOutput("r", None, [1], finished=True))
        assert (await subject.next()).finished and subject.is_over
        other = Stream("s", Submission(None, [1], PARAMS), 0, 0.0)
        other.put(EngineError("why"))
        with pytest.raises(EngineError, match="why"):
            await other.next()
        assert other.is_over

    asyncio.run(main())


def test_commands_are_obeyed_in_order(house: Any) -> None:
    gate = threading.Event()
    house.toy.on_step = lambda plan: gate.wait() and None

    async def main() -> None:
        thread = start(house)
        first, second = stream(house, "a"), stream(house, "b")
        thread.add(first)
        thread.add(second)
        thread.cancel(second)
        again = stream(house, "b")
        thread.add(again)
        thread.cancel(second)  # its id belongs to another stream by now
        gate.set()
        assert (await end_of(first)).outputs[0].finish_reason == "length"
        assert (await end_of(again)).outputs[0].finish_reason == "length"
        assert thread.stats().finished == {"stop": 0, "length": 2, "repetition": 0, "abort": 1, "error": 0}
        thread.stop()

    asyncio.run(main())


def test_without_requests_it_prepares_piece_by_piece_and_a_request_waits_for_one(house: Any) -> None:
    done: list[str] = []
    pieces, begun, gate = iter([True, True, True, False]), threading.Event(), threading.Event()

    def prepare() -> bool:
        done.append("piece")
        begun.set()
        gate.wait()
        return next(pieces, False)

    house.toy.on_step = lambda plan: done.append("step")

    async def main() -> None:
        loaded = house.loaded()
        thread = EngineThread(Driver(loaded.settings, loaded.execute, loaded.tokenizer), prepare)
        begun.wait()
        first = stream(house, "a")
        thread.add(first)
        gate.set()
        assert (await end_of(first)).outputs[0].finish_reason == "length"
        second = stream(house, "b")
        await asyncio.to_thread(wait_for, lambda: done[-3:] == ["piece"] * 3)
        thread.add(second)
        assert (await end_of(second)).outputs[0].finish_reason == "length"
        await asyncio.to_thread(wait_for, lambda: done[-1] == "piece")
        thread.stop()

    asyncio.run(main())
    # three are left after the first request; after the second it asks once more, and then no more
    assert done == ["piece", *["step"] * 4, *["piece"] * 3, *["step"] * 4, "piece"]


def wait_for(is_there: Callable[[], bool]) -> None:
    for _ in range(6000):
        if is_there():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


def test_what_was_added_before_the_stop_is_aborted(house: Any) -> None:
    gate = threading.Event()
    house.toy.on_step = lambda plan: gate.wait() and None

    async def main() -> None:
        thread = start(house)
        streams = [stream(house, name) for name in "abc"]
        for each in streams:
            thread.add(each)
        stopping = threading.Thread(target=thread.stop)
        stopping.start()
        gate.set()
        stopping.join()
        for each in streams:
            assert (await end_of(each)).finished
        with pytest.raises(EngineError, match="shut down"):
            thread.add(stream(house, "d"))
        thread.stop()

    asyncio.run(main())


def test_a_dead_engine_tells_those_that_wait_for_their_turn_too(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def die(*_: Any) -> None:
        gate.wait()
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("albireo.api.driver.Driver.step", die)

    async def main() -> None:
        thread = start(house)
        streams = [stream(house, name) for name in "abc"]
        for each in streams:
            thread.add(each)
        gate.set()
        for each in streams:
            with pytest.raises(EngineError, match="RuntimeError: a bug of ours"):
                await end_of(each)
        thread.stop()
        with pytest.raises(EngineError, match="a bug of ours"):
            thread.add(stream(house, "d"))

    asyncio.run(main())
