"""Results that are awaited, or iterated over."""

from __future__ import annotations

import asyncio

import pytest

from albireo.api.awaited import OneResult


async def five() -> int:
    await asyncio.sleep(0)
    return 5


async def wrong() -> int:
    await asyncio.sleep(0)
    raise ValueError("wrong")


def test_one_result_is_awaited_iterated_over_or_a_task() -> None:
    async def main() -> None:
        assert await OneResult(five()) == 5
        assert [each async for each in OneResult(five())] == [5]
        assert await asyncio.create_task(OneResult(five())) == 5
        assert await asyncio.gather(OneResult(five()), OneResult(five())) == [5, 5]
        assert await asyncio.wait_for(OneResult(five()), 60) == 5

    asyncio.run(main())


def test_its_error_and_its_end_reach_the_work() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="wrong"):
            await OneResult(wrong())
        with pytest.raises(ValueError, match="wrong"):
            [each async for each in OneResult(wrong())]
        ended: list[bool] = []

        async def endless() -> int:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(True)
            return 0

        task = asyncio.create_task(OneResult(endless()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    asyncio.run(main())
