"""A step on a device that is a table: copies first, then the program, then tokens in the plan's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError, OutOfMemory
from albireo.execution.runner import Runner, RunnerParts
from albireo.params import PoolingParams, SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import PoolingTask, SampleTask, SequenceWork, StepPlan

VOCAB = 10


@dataclass
class Outputs:
    logits: Any
    top_ids: Any
    top_values: Any


@dataclass
class HiddenOutputs:
    hidden: Any
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

    def swap_out(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.log.append(("out", list(pairs)))

    def swap_in(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.log.append(("in", list(pairs)))


@dataclass
class HiddenTable(Table):
    """The same with hidden states (token id, position) in place of logits."""

    def run(self, inputs: StepInputs) -> Any:
        best = super().run(inputs)
        states = np.stack([inputs.token_ids, inputs.positions], axis=1).astype(np.float32)
        states[inputs.token_ids == self.bad_token] = np.nan
        return HiddenOutputs(states[inputs.logit_rows], best.top_ids, best.top_values)


def task(seq_id: int, **params: Any) -> SampleTask:
    return SampleTask(seq_id, SamplingParams(**{"temperature": 0, **params}), 0, [1], [])


def plan(*works: SequenceWork, copies: Sequence[tuple[int, int, int]] = ()) -> StepPlan:
    return StepPlan(0, list(works), sum(len(w.token_ids) for w in works), list(copies))


def drafted(seq_id: int, token_ids: list[int], num_drafts: int, its: SampleTask) -> SequenceWork:
    return SequenceWork(seq_id, token_ids, 5, ([seq_id],), (its,), num_drafts=num_drafts)


WAYS: dict[str, dict[str, Any]] = {
    "arg max": {},
    "best few": {"temperature": 0.01, "top_k": 2},
    "logits": {"logprobs": 0},
}


@pytest.mark.parametrize("params", WAYS.values(), ids=WAYS)
def test_a_task_draws_on_while_its_drafts_come_true(params: dict[str, Any]) -> None:
    """The table says the token after; a draft may be wrong at first, in the middle, or never."""
    works = [
        drafted(1, [1, 2, 3, 4], 3, task(1, **params)),
        SequenceWork(2, [6], 0, ([2],), (task(2, **params),)),
        drafted(3, [1, 2, 7, 8], 3, task(3, **params)),
        drafted(4, [1, 5, 6], 2, task(4, **params)),
        SequenceWork(5, [3, 4], 0, ([5],)),
    ]
    step = plan(*works)
    step.num_drafts = 8
    found = [(t.seq_id, t.token_id, t.logprobs is not None) for t in Runner(Table(), VOCAB, 16).execute(step).tokens]
    wanted = [(1, 2), (1, 3), (1, 4), (1, 5), (2, 7), (3, 2), (3, 3), (4, 2)]
    assert found == [(seq_id, token_id, "logprobs" in params) for seq_id, token_id in wanted]
    assert step.part(works[:2]).num_drafts == 3


class Asked:
    """Remembers which outputs it was asked about: as a grammar, which allows all but one token, and as a budget."""

    eos_token_ids = ()

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        self.seen.append(list(output_token_ids))
        return b"\xff\xff" if len(output_token_ids) < 2 else b"\x00\x02"

    def forced(self, output_token_ids: Sequence[int]) -> int | None:
        self.seen.append(list(output_token_ids))
        return 8 if len(output_token_ids) == 1 else None


def test_a_grammar_is_asked_only_about_what_came() -> None:
    matcher, budget = Asked(), Asked()
    params = SamplingParams(temperature=0, structured_outputs={"regex": "a"})
    first = SampleTask(1, params, 0, [1], [], matcher=matcher)
    second = SampleTask(2, SamplingParams(temperature=0), 0, [1], [4], budget=budget)
    step = plan(drafted(1, [1, 2, 3, 4, 5], 4, first), drafted(2, [4, 8, 5], 2, second))
    step.num_drafts = 6
    found = [(t.seq_id, t.token_id) for t in Runner(Table(), VOCAB, 16).execute(step).tokens]
    # Behind 2, 3 the grammar wants a 9, which is no draft; the budget wants an 8 behind one token, and then nothing.
    assert found == [(1, 2), (1, 3), (1, 9), (2, 8), (2, 9)]
    assert matcher.seen == [[], [2], [2, 3]]
    assert budget.seen == [[4], [4, 8]]
    assert (first.output_token_ids, second.output_token_ids) == ([], [4])


def test_what_is_wrong_behind_a_wrong_draft_is_not_told() -> None:
    work = drafted(1, [1, 5, 6], 2, task(1, logprobs=0))
    step = plan(work)
    step.num_drafts = 2
    assert [t.token_id for t in Runner(Table(bad_token=5), VOCAB, 16).execute(step).tokens] == [2]
    with pytest.raises(InvariantError, match="sequence 1"):
        Runner(Table(bad_token=1), VOCAB, 16).execute(step)


def test_best_logits_that_do_not_decide_are_asked_for_in_full() -> None:
    """All others are 0, so the second and the third of top-k are equal: the sampler needs them all."""
    table = Table()
    step = plan(drafted(1, [1, 2, 3], 2, task(1, temperature=5.0, top_k=2, seed=4)))
    step.num_drafts = 2
    result = Runner(table, VOCAB, 16).execute(step)
    assert [kind for kind, _ in table.log] == ["run", "run"]
    assert 1 <= len(result.tokens) <= 3


def test_blocks_are_copied_before_anything_is_computed() -> None:
    table = Table()
    Runner(table, VOCAB, 16).execute(plan(SequenceWork(1, [3], 0, ([1],)), copies=[(4, 5), (5, 6)]))
    assert table.log == [("copy", [(4, 5), (5, 6)]), ("run", [3])]


def test_blocks_leave_before_they_are_another_s_and_come_back_last() -> None:
    table = Table()
    moving = plan(SequenceWork(1, [3], 0, ([1],)), copies=[(4, 5)])
    moving.swap_outs, moving.swap_ins = [(7, 2), (8, 3)], [(1, 7)]
    Runner(table, VOCAB, 16, host=table).execute(moving)
    assert table.log == [("out", [(7, 2), (8, 3)]), ("copy", [(4, 5)]), ("in", [(1, 7)]), ("run", [3])]
    table.log.clear()
    part = moving.part(moving.work[:1])
    assert (part.num_tokens, part.block_copies, part.swap_outs, part.swap_ins) == (1, [], [], [])
    with pytest.raises(InvariantError, match="step 0 swaps blocks, and this device keeps none"):
        Runner(table, VOCAB, 16).execute(moving.part(moving.work, has_moves=True))
    assert table.log == []


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


def test_a_step_that_changed_states_is_not_computed_again() -> None:
    """Its best logits do not decide: as no number does, and equals of top-k cannot be, since all logits are written."""

    class WithStates(Table):
        def copy_states(self, pairs: Sequence[tuple[int, int]]) -> None: ...

    table = WithStates(bad_token=2)
    works = [SequenceWork(i, [i], 0, ([i],), (task(i),), state_slot=i) for i in (1, 2, 3)]
    with pytest.raises(InvariantError, match=r"^sequence 2: its best logit is nan"):
        Runner(table, VOCAB, 16, states=table).execute(plan(*works))
    assert [entry[0] for entry in table.log] == ["run"]
    table.log.clear()
    work = SequenceWork(1, [3], 0, ([1],), (task(1, temperature=5.0, top_k=2, seed=4),), state_slot=1)
    by_all = Runner(table, VOCAB, 16, states=table).execute(plan(work)).tokens
    assert [entry[0] for entry in table.log] == ["run"]
    assert by_all == Sampler(VOCAB).sample(np.eye(VOCAB, dtype=np.float32)[[4]], list(work.samples), [0])


def test_equals_of_the_last_of_the_best_are_settled_by_all_logits() -> None:
    """All but one logit of the table are equal: top-2 keeps all ten, and the step is computed again with logits."""
    table = Table()
    work = SequenceWork(1, [3], 0, ([1],), (task(1, temperature=5.0, top_k=2, seed=4),))
    by_best = Runner(table, VOCAB, 16).execute(plan(work)).tokens
    assert [entry[0] for entry in table.log] == ["run", "run"]
    logits = np.eye(VOCAB, dtype=np.float32)[[4]]
    assert by_best == Sampler(VOCAB).sample(logits, list(work.samples), [0])


def test_embeddings_without_memory_name_who_asked() -> None:
    class Short(Table):
        def run(self, inputs: StepInputs) -> Any:
            raise OutOfMemory("the GPU is out of memory in a step")

    works = [SequenceWork(i, [i], 0, ([i],)) for i in (1, 2, 3)]
    for work in works[1:]:
        work.pooling = PoolingTask(PoolingParams(), 1, 0, [], True)
    with pytest.raises(OutOfMemory, match="an embedding for sequence 2, sequence 3: the GPU is out of memory"):
        Runner(Table(), VOCAB, 16, RunnerParts(Short())).execute(plan(*works))


def test_a_plan_without_work_runs_nothing() -> None:
    table = Table()
    assert Runner(table, VOCAB, 16).execute(plan()).tokens == []
    assert table.log == []


def embed(seq_id: int, ids: list[int], start: int = 0, kind: Any = "mean", **changes: Any) -> SequenceWork:
    """Work that ends its prompt, of which the mean, or the last token, is wanted; as it is, not scaled."""
    params = PoolingParams(pooling_type=kind, use_activation=False)
    num_rows = len(ids) if kind == "mean" else 1
    fields = {"params": params, "num_rows": num_rows, "num_earlier": 0, "sums": [], "is_last": True}
    return SequenceWork(seq_id, ids, start, ([seq_id],), pooling=PoolingTask(**{**fields, **changes}))


def test_hidden_states_go_to_whom_they_belong() -> None:
    """Rows of different works lie side by side; between them are rows nobody wants."""
    model, pooler = Table(), HiddenTable()
    works = [
        embed(1, [2, 4, 3]),
        SequenceWork(2, [5, 6, 7], 0, ([2],)),
        embed(3, [8, 1], 6, "last"),
        embed(4, [5, 1, 1], 4, num_rows=2, num_earlier=5, sums=[10.0, 20.0], is_last=False),
    ]
    result = Runner(model, VOCAB, 16, RunnerParts(pooler)).execute(plan(*works))
    assert result.pooled == {1: [3.0, 1.0], 3: [1.0, 7.0], 4: [12.0, 31.0]}
    assert result.tokens == [] and not model.log and len(pooler.log) == 1


@pytest.mark.parametrize(
    ("params", "num_again"), [({}, 0), ({"temperature": 5.0, "top_k": 2}, 2), ({"logprobs": 0}, 1)]
)
def test_what_the_best_logits_do_not_decide_is_computed_again(params: dict[str, Any], num_again: int) -> None:
    """Without the works that are pooled. The tokens are the usual ones."""
    model, pooler = Table(), HiddenTable()
    sampled = SequenceWork(5, [3], 0, ([5],), (task(5, seed=4, **params),))
    wanted = Runner(Table(), VOCAB, 16).execute(plan(sampled)).tokens
    result = Runner(model, VOCAB, 16, RunnerParts(pooler)).execute(plan(embed(1, [2, 4]), sampled, copies=[(4, 5)]))
    assert result.tokens == wanted and result.pooled == {1: [3.0, 0.5]}
    assert pooler.log == [("run", [2, 4, 3])]
    assert model.log == [("copy", [(4, 5)]), *[("run", [3])] * num_again]


def test_a_step_without_hidden_states_is_the_models() -> None:
    model, pooler = Table(), HiddenTable()
    Runner(model, VOCAB, 16, RunnerParts(pooler)).execute(plan(SequenceWork(1, [3, 4], 0, ([1],))))
    assert len(model.log) == 1 and not pooler.log


def test_hidden_states_that_are_no_numbers_name_their_sequence() -> None:
    works = [embed(i, [2 + i]) for i in (1, 2, 3)]
    with pytest.raises(InvariantError, match="sequence 2: hidden states"):
        Runner(Table(), VOCAB, 16, RunnerParts(HiddenTable(bad_token=4))).execute(plan(*works))
