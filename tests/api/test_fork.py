"""A model in a process that was forked from the one which loaded it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from albireo import LLM, AsyncLLM, EngineError, SamplingParams

PROMPT, GREEDY = "Once upon", SamplingParams(max_tokens=8, temperature=0)


def status_in_a_child(run: Callable[[], bool]) -> int:
    """0 when run() was true there; what ends it after a while is a signal."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            os._exit(not run())
        except BaseException:
            os._exit(2)
    return os.waitpid(pid, 0)[1]


def test_an_llm_has_its_threads_there_too() -> None:
    llm = LLM(num_threads=2)

    def says() -> list[int]:
        return llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids

    def closes() -> bool:
        llm.close()
        return True

    wanted = says()
    assert status_in_a_child(lambda: says() == wanted and says() == wanted) == 0
    assert status_in_a_child(lambda: status_in_a_child(lambda: says() == wanted) == 0) == 0, "and a child of a child"
    assert status_in_a_child(closes) == 0, "whose threads are not waited for"
    assert says() == wanted


def test_an_async_llm_says_that_its_thread_is_not_there() -> None:
    with_thread = AsyncLLM(num_threads=1)

    async def says() -> list[int]:
        return [output async for output in with_thread.generate(PROMPT, GREEDY)][-1].outputs[0].token_ids

    def is_refused() -> bool:
        with pytest.raises(EngineError, match="forked"):
            asyncio.run(says())
        with_thread.shutdown()
        return True

    try:
        wanted = asyncio.run(says())
        assert status_in_a_child(is_refused) == 0
        assert asyncio.run(says()) == wanted
    finally:
        with_thread.shutdown()
