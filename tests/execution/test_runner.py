"""A step on a device that is a table: copies first, then the program, then tokens in the plan's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError
from albireo.execution.runner import Runner
from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask, SequenceWork, StepPlan

VOCAB = 10


@dataclass
class Outputs:
    logits: Any
    top_ids: Any
    top_values: Any


@dataclass
class Table:
    """The logit of token v in row r is 1 where v = token id of r plus one, and 0 elsewhere; damaged at bad_token."""

    bad_token: int = -1
    log: list[Any] = field(default_factory=list)

    def run(self, inputs: StepInputs) -> Outputs:
        self.log.append(("run", inputs.token_ids.tolist()))
        logits = np.zeros((inputs.num_tokens, VOCAB), np.float32)
        logits[np.arange(inputs.num_tokens), inputs.token_ids + 1] = 1.0
        logits[inputs.token_ids == self.bad_token] = np.nan
        top = logits[inputs.top_rows]
        ids = np.argsort(-top, axis=1, kind="stable").astype(np.int32)
        ids = np.where(np.arange(VOCAB) < inputs.top_counts[:, None], ids, -1)
        return Outputs(logits[inputs.logit_rows], ids, np.where(ids < 0, -np.inf, np.take_along_axis(top, ids, 1)))

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.log.append(("copy", list(pairs)))


def task(seq_id: int, **params: Any) -> SampleTask:
    return SampleTask(seq_id, SamplingParams(**{"temperature": 0, **params}), 0, [1], [])


def plan(*works: SequenceWork, copies: Sequence[tuple[int, int, int]] = ()) -> StepPlan:
    return StepPlan(0, list(works), sum(len(w.token_ids) for w in works), list(copies))


def test_blocks_are_copied_before_anything_is_computed() -> None:
    table = Table()
    Runner(table, VOCAB, 16).execute(plan(SequenceWork(1, [3], 0, ([1],)), copies=[(0, 4, 5), (0, 5, 6)]))
    assert table.log == [("copy", [(4, 5), (5, 6)]), ("run", [3])]


@pytest.mark.parametrize("params", [{}, {"logprobs": 0}], ids=["arg max", "logits"])
def test_tokens_come_in_the_plans_order_whichever_way_they_are_found(params: dict[str, Any]) -> None:
    works = [
        SequenceWork(7, [1, 4], 0, ([1],), (task(7, **params), task(8, **params))),
        SequenceWork(3, [2], 0, ([2],), (task(3, **params),)),
    ]
    result = Runner(Table(), VOCAB, 16).execute(plan(*works))
    assert [(t.seq_id, t.token_id) for t in result.tokens] == [(7, 5), (8, 5), (3, 3)]
    assert all((t.logprobs is not None) == bool(params) for t in result.tokens)


def test_prompt_log_probabilities_are_those_of_the_targets() -> None:
    work = SequenceWork(1, [1, 2, 5], 0, ([1],), (task(1),), prompt_logprobs=0, prompt_targets=[2, 5])
    result = Runner(Table(), VOCAB, 16).execute(plan(work))
    first, second = result.prompt_logprobs[1]
    assert (first.token_ids, first.ranks) == ([2], [1])
    assert (second.token_ids, second.ranks) == ([5], [2])
    assert first.logprobs[0] == pytest.approx(1 - np.log(np.e + VOCAB - 1), abs=1e-6)


@pytest.mark.parametrize("params", [{}, {"logprobs": 0}], ids=["arg max", "logits"])
def test_logits_that_are_no_numbers_name_their_sequence(params: dict[str, Any]) -> None:
    works = [SequenceWork(i, [i], 0, ([i],), (task(i, **params),)) for i in (1, 2, 3)]
    with pytest.raises(InvariantError, match="sequence 2"):
        Runner(Table(bad_token=2), VOCAB, 16).execute(plan(*works))


def test_equals_of_the_last_of_the_best_are_settled_by_all_logits() -> None:
    """All but one logit of the table are equal: top-2 keeps all ten, and the step is computed again with logits."""
    table = Table()
    work = SequenceWork(1, [3], 0, ([1],), (task(1, temperature=5.0, top_k=2, seed=4),))
    by_best = Runner(table, VOCAB, 16).execute(plan(work)).tokens
    assert [entry[0] for entry in table.log] == ["run", "run"]
    logits = np.eye(VOCAB, dtype=np.float32)[[4]]
    assert by_best == Sampler(VOCAB).sample(logits, list(work.samples), [0])


def test_a_plan_without_work_runs_nothing() -> None:
    table = Table()
    assert Runner(table, VOCAB, 16).execute(plan()).tokens == []
    assert table.log == []
