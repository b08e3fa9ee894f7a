"""A device that is out of memory in a step: the last sequence does without, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from albireo.api.guarded_engine import GuardedEngine
from albireo.errors import DeviceLost, OutOfMemory
from albireo.params import SamplingParams
from albireo.step import StepPlan

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


class Served:
    """An engine on the toy of this folder, what it told of each request, and whom it computed in each step."""

    def __init__(self, house: Any, **config: Any) -> None:
        loaded = house.loaded(**config)
        self.guarded = GuardedEngine(loaded.settings, loaded.execute)
        self.tokens: dict[str, list[int]] = {}
        self.ends: dict[str, tuple[Any, Any]] = {}
        self.executed: list[list[int]] = []

    def add(self, *names: str) -> None:
        for name in names:
            self.guarded.engine.add_request(name, [ord(each) for each in name * 3], GREEDY)
            self.tokens[name] = []

    def step(self) -> None:
        for update in self.guarded.step():
            self.tokens[update.request_id] += update.token_ids
            if update.finish_reason is not None:
                self.ends[update.request_id] = (update.finish_reason, update.stop_reason)
        self.guarded.engine.check_invariants()

    def run(self) -> None:
        while self.guarded.engine.has_work():
            self.step()


def short(served: Served, fails: Callable[[int, StepPlan], bool]) -> Callable[[StepPlan], None]:
    """on_step of a device that is out of memory where fails(attempt, plan) says so."""

    def on_step(plan: StepPlan) -> None:
        served.executed.append([work.seq_id for work in plan.work])
        if fails(len(served.executed), plan):
            raise OutOfMemory("the GPU is out of memory in a step")

    return on_step


@pytest.fixture
def wanted(house: Any) -> dict[str, list[int]]:
    served = Served(house)
    served.add("a", "b", "c")
    served.run()
    return served.tokens


def test_the_last_sits_a_step_out_and_comes_back(house: Any, wanted: dict[str, list[int]]) -> None:
    served = Served(house)
    house.toy.on_step = short(served, lambda attempt, plan: attempt == 3)
    served.add("a", "b", "c")
    served.run()
    assert served.executed[1:5] == [[0, 1, 2], [0, 1, 2], [0, 1], [0, 1, 2]]
    assert served.tokens == wanted
    stats = served.guarded.engine.stats()
    assert stats.num_failed_steps == 1 and stats.num_preemptions == 0, "it kept its blocks"


@pytest.mark.parametrize("at", [1, 4])
def test_one_that_comes_on_is_last(house: Any, wanted: dict[str, list[int]], at: int) -> None:
    """Also where the step that fails is the first of it, or of all."""
    served = Served(house)
    house.toy.on_step = short(served, lambda attempt, plan: attempt == at)
    served.add("a", "b")
    served.step()
    served.step()
    served.add("c")
    served.run()
    failed = served.executed[at - 1]
    assert served.executed[at] == failed[:-1] and failed[-1] in served.executed[at + 1]
    assert served.tokens == wanted and set(served.ends.values()) == {("length", None)}


def test_if_that_does_not_help_it_ends(house: Any, wanted: dict[str, list[int]]) -> None:
    served = Served(house)
    house.toy.on_step = short(served, lambda attempt, plan: attempt in (3, 4))
    served.add("a", "b", "c")
    served.run()
    assert served.ends["c"] == ("error", "OutOfMemory: the GPU is out of memory in a step")
    assert served.tokens == wanted | {"c": wanted["c"][:2]}
    assert served.ends["a"] == served.ends["b"] == ("length", None)


def test_alone_it_is_tried_once_more(house: Any, wanted: dict[str, list[int]]) -> None:
    served = Served(house)
    house.toy.on_step = short(served, lambda attempt, plan: attempt in (2, 5, 6))
    served.add("a")
    served.run()
    assert served.executed == [[0]] * 6
    assert served.tokens == {"a": wanted["a"][:3]} and served.ends["a"][0] == "error"


def test_what_never_fits_ends_one_by_one_and_the_engine_serves_on(house: Any, wanted: dict[str, list[int]]) -> None:
    served = Served(house)
    house.toy.on_step = short(served, lambda attempt, plan: True)
    served.add("a", "b", "c")
    served.run()
    assert list(served.ends) == ["c", "b", "a"] and {reason for reason, _ in served.ends.values()} == {"error"}
    house.toy.on_step = lambda plan: None
    served.add("d")
    served.run()
    assert served.ends["d"] == ("length", None)


def test_steps_of_two_fit_and_of_three_do_not(house: Any, wanted: dict[str, list[int]]) -> None:
    """The third waits until there is room beside it; all end well."""
    served = Served(house)
    house.toy.on_step = short(served, lambda attempt, plan: len(plan.work) > 2)
    served.add("a", "b", "c")
    served.run()
    assert served.tokens == wanted and set(served.ends.values()) == {("length", None)}


def test_those_that_are_named_end(house: Any, wanted: dict[str, list[int]]) -> None:
    served = Served(house)

    def on_step(plan: StepPlan) -> None:
        if 1 in [work.seq_id for work in plan.work]:
            raise OutOfMemory("an embedding for sequence 1: the GPU is out of memory in a step")

    house.toy.on_step = on_step
    served.add("a", "b", "c")
    served.run()
    assert {name: reason for name, (reason, _) in served.ends.items()} == {"a": "length", "b": "error", "c": "length"}
    assert served.tokens == wanted | {"b": []}


def test_a_step_fails_for_another_reason_first(house: Any, wanted: dict[str, list[int]]) -> None:
    served = Served(house)
    inner = short(served, lambda attempt, plan: attempt == 2)

    def on_step(plan: StepPlan) -> None:
        inner(plan)
        if len(served.executed) == 1:
            raise RuntimeError("something else")

    house.toy.on_step = on_step
    served.add("a", "b", "c")
    served.run()
    assert served.ends["c"][0] == "error" and served.tokens == wanted | {"c": []}


def test_nothing_is_looked_for_on_a_gpu_that_is_lost(house: Any) -> None:
    """A step failed twice; while its guilty sequence is looked for the GPU is lost, which is nobody's end."""
    served = Served(house)

    def on_step(plan: StepPlan) -> None:
        served.executed.append([work.seq_id for work in plan.work])
        if len(served.executed) > 2:
            raise DeviceLost("the GPU is lost to this process")
        raise RuntimeError("a launch is refused")

    house.toy.on_step = on_step
    served.add("a", "b", "c")
    with pytest.raises(DeviceLost):
        served.run()
    assert len(served.executed) == 3 and not served.ends
