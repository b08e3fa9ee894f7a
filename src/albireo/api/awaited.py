"""Results that are awaited: one that may be iterated over instead, as vLLM has it; several at once.

Used by async_llm.py. Does not know what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class OneResult(Coroutine[Any, Any, T]):
    """A coroutine that `async for` may have, too: it gives the one result."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        yield await self._work

    def send(self, value: Any) -> Any:
        """Of the coroutine."""
        return self._work.send(value)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        """Of the coroutine."""
        return self._work.throw(kind if value is None else value)

    def close(self) -> None:
        """Of the coroutine."""
        self._work.close()


async def together(asking: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All, in order; where one fails, or the caller gives up, none goes on."""
    tasks = [asyncio.ensure_future(each) for each in asking]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
