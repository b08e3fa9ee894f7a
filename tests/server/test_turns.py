"""Whose turn it is: who has the memory, who waits, and who gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from albireo.errors import EngineError
from albireo.server.turns import Turns, Waiter


class Played:
    """A model whose work is that of its requests, and `extra` that none waits at."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self._log = name, log
        self.num_inside, self.used_s, self.woken_s = 0, 0.0, 0.0
        self.is_awake = self.has_extra = False
        self.damage: Exception | None = None
        self.breaks: Exception | None = None
        self.held: asyncio.Event | None = None

    @property
    def takes_memory(self) -> bool:
        return self.is_awake or self.num_inside > 0

    @property
    def is_ready(self) -> bool:
        return self.is_awake

    @property
    def is_at_rest(self) -> bool:
        return not self.num_inside and not self.has_extra

    async def check(self) -> None:
        if self.damage is not None:
            raise self.damage

    async def start(self) -> None:
        if self.is_awake:
            return
        if self.held is not None:
            await self.held.wait()
        if self.breaks is not None:
            raise self.breaks
        self.is_awake, self.woken_s = True, asyncio.get_running_loop().time()
        self._log.append(f"+{self.name}")

    async def sleep(self) -> None:
        if self.is_awake:
            assert self.is_at_rest
            self.is_awake = False
            self._log.append(f"-{self.name}")


def played(
    play: Callable[[Turns, list[Played]], Awaitable[None]], max_awake: int = 1, switch_after: float = 1e9
) -> list[str]:
    """What happened, of three models a, b and c."""
    log: list[str] = []

    async def run() -> None:
        models = [Played(name, log) for name in "abc"]
        turns = Turns(models, max_awake, switch_after)
        await play(turns, models)
        turns.close("over")

    asyncio.run(asyncio.wait_for(run(), 60))
    return log


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def had(turns: Turns, model: Any) -> Waiter:
    waiter = turns.ask(model)
    assert await waiter.turn is None
    return waiter


def test_who_rests_for_longest_makes_room() -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, c = models
        for model in (a, b, a, c, a):
            turns.withdraw(await had(turns, model))

    assert played(play, max_awake=2) == ["+a", "+b", "-b", "+c"]
    assert played(play) == ["+a", "-a", "+b", "-b", "+a", "-a", "+c", "-c", "+a"]


@pytest.mark.parametrize("error", [EngineError("damaged"), OSError("unforeseen")])
def test_nobody_makes_room_for_one_that_is_known_to_be_damaged(error: Exception) -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, c = models
        turns.withdraw(await had(turns, a))
        b.damage = error
        waiting = turns.ask(b)
        assert isinstance(await waiting.turn, EngineError) and a.is_awake
        turns.withdraw(waiting)
        turns.withdraw(await had(turns, c))

    assert played(play) == ["+a", "-a", "+c"]


def test_who_is_busy_is_waited_for_and_takes_more_until_its_time_is_over() -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, _ = models
        first = await had(turns, a)
        waiting = turns.ask(b)
        await settle()
        second = turns.ask(a)
        assert second.has_turn and not waiting.turn.done() and turns.num_waiting == 1
        turns.withdraw(first)
        await settle()
        assert not waiting.turn.done()
        turns.withdraw(second)
        assert await waiting.turn is None and not a.is_awake

    assert played(play) == ["+a", "-a", "+b"]


def test_who_is_always_busy_gives_way_and_then_the_order_is_that_of_asking() -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, c = models
        first = await had(turns, a)
        asked = [turns.ask(b)]
        await settle()
        asked += [turns.ask(a), turns.ask(c), turns.ask(b)]
        assert not any(each.turn.done() for each in asked) and turns.num_waiting_for(b) == 2
        turns.withdraw(first)
        assert await asked[0].turn is None and asked[3].has_turn  # they share a turn
        for each in (asked[0], asked[3]):
            turns.withdraw(each)
        assert await asked[1].turn is None and not asked[2].turn.done()
        turns.withdraw(asked[1])
        assert await asked[2].turn is None

    assert played(play, switch_after=0) == ["+a", "-a", "+b", "-b", "+a", "-a", "+c"]


def test_of_two_that_are_busy_one_gives_way() -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, c = models
        held = [await had(turns, a), await had(turns, b)]
        waiting = turns.ask(c)
        await settle()
        more = turns.ask(b)
        assert more.has_turn and not turns.ask(a).turn.done()
        turns.withdraw(held[0])
        assert await waiting.turn is None

    assert played(play, max_awake=2, switch_after=0) == ["+a", "+b", "-a", "+c"]


def test_who_leaves_is_not_waited_for() -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, _ = models
        first = await had(turns, a)
        waiting = turns.ask(b)
        await settle()
        turns.withdraw(waiting)
        await settle()
        assert turns.ask(a).has_turn and turns.num_waiting == 0
        turns.withdraw(first)

    assert played(play, switch_after=0) == ["+a"]


def test_work_that_no_request_waits_at_is_finished_first() -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, _ = models
        turns.withdraw(await had(turns, a))
        a.has_extra = True
        waiting = turns.ask(b)
        await settle()
        assert not waiting.turn.done() and a.is_awake
        a.has_extra = False
        assert await waiting.turn is None

    assert played(play) == ["+a", "-a", "+b"]


@pytest.mark.parametrize("error", [EngineError("no memory"), KeyError("odd")])
def test_one_that_cannot_be_started_is_told_to_who_waits_for_it_and_tried_again(error: Exception) -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        a, b, _ = models
        b.breaks, b.held = error, asyncio.Event()
        asked = [turns.ask(b), turns.ask(b), turns.ask(a)]
        await settle()
        b.held.set()
        assert isinstance(await asked[0].turn, EngineError) and isinstance(await asked[1].turn, EngineError)
        assert await asked[2].turn is None
        for each in asked:
            turns.withdraw(each)
        assert (a.num_inside, b.num_inside) == (0, 0)
        b.breaks = None
        turns.withdraw(await had(turns, b))

    assert played(play) == ["+a", "-a", "+b"]


def test_at_the_end_nobody_waits() -> None:
    async def play(turns: Turns, models: list[Played]) -> None:
        await had(turns, models[0])
        waiting = turns.ask(models[1])
        turns.close("shutting down")
        assert str(await waiting.turn) == "shutting down"

    assert played(play) == ["+a"]
