"""Requests whose output follows a grammar: each sequence has its own matcher, and EOS ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from albireo.engine.engine import Engine
from albireo.errors import InvariantError
from albireo.params import SamplingParams
from albireo.step import SampledToken, StepResult


class Matcher:
    eos_token_ids = (0, 4)

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        return b"\xff"


class Constraint:
    def __init__(self) -> None:
        self.given: list[Matcher] = []

    def matcher(self) -> Matcher:
        self.given.append(Matcher())
        return self.given[-1]


def params(**kwargs: Any) -> SamplingParams:
    return SamplingParams(structured_outputs={"regex": "a"}, **kwargs)


@pytest.mark.parametrize(
    ("tokens", "kwargs", "expected"),
    [
        ([5, 0], {}, (2, "stop", None)),
        ([5, 4], {"ignore_eos": True}, (2, "stop", None)),
        ([5, 4], {"min_tokens": 9}, (2, "stop", None)),
        ([9, 5, 4], {"min_tokens": 9, "stop_token_ids": (9,)}, (3, "stop", None)),
        ([9], {"stop_token_ids": (9,)}, (1, "stop", 9)),
        ([5, 6], {"max_tokens": 2}, (2, "length", None)),
    ],
)
def test_how_a_constrained_sequence_ends(bench: Any, tokens: list[int], kwargs: Any, expected: Any) -> None:
    settings = bench(eos_token_ids=frozenset({0, 4}), max_model_len=12).settings
    said = iter(tokens)

    def execute(plan: Any) -> StepResult:
        return StepResult([SampledToken(task.seq_id, next(said)) for work in plan.work for task in work.samples])

    engine = Engine(settings, execute, lambda: 0.0)
    engine.add_request("r", [1, 2, 3], params(**kwargs), constraint=Constraint())
    count = 0
    while True:
        (update,) = engine.step()
        count += len(update.token_ids)
        if update.finish_reason is not None:
            assert (count, update.finish_reason, update.stop_reason) == expected
            return


def test_each_continuation_has_a_matcher_of_its_own(bench: Any) -> None:
    seen: dict[int, set[int]] = {}

    def execute(plan: Any) -> StepResult:
        tasks = [task for work in plan.work for task in work.samples]
        for task in tasks:
            seen.setdefault(task.seq_id, set()).add(id(task.matcher))
        return StepResult([SampledToken(task.seq_id, 5) for task in tasks])

    engine = Engine(bench().settings, execute, lambda: 0.0)
    constraint = Constraint()
    engine.add_request("r", [1, 2, 3], params(n=3, max_tokens=3), constraint=constraint)
    while engine.has_work():
        engine.step()
    assert [seen[index] for index in range(3)] == [{id(matcher)} for matcher in constraint.given]


def test_a_form_that_was_not_compiled_is_a_bug(bench: Any) -> None:
    engine = Engine(bench().settings, lambda plan: StepResult([]), lambda: 0.0)
    with pytest.raises(InvariantError, match="compiled grammar come together"):
        engine.add_request("r", [1], params())
    with pytest.raises(InvariantError, match="compiled grammar come together"):
        engine.add_request("r", [1], SamplingParams(), constraint=Constraint())
    assert not engine.has_work()
