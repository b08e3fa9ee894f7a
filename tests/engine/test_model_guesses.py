"""Drafts of a model: what it is asked for, and that its own KV cache holds what it is thought to hold.

The draft model of these tests stores the tokens that it is given, slot by slot, and guesses from what it reads back.
"""

from __future__ import annotations

import random
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.engine.model_drafts import PATIENCE, PATIENCE_OF_HEADS
from albireo.engine.model_guesses import MOST_FAILED
from albireo.errors import InvariantError
from albireo.speculative.pacing import Pacing
from albireo.speculative.proposer import Method
from albireo.speculative_config import SpeculativeConfig
from albireo.step import SampledToken, StepPlan, StepResult
from engine.conftest import VOCAB_SIZE, ToyExecutor, checksum, next_token, prefix_checksums
from engine.test_properties import apply, events, recurrent_setups, setups
from more_examples import more_examples

CONFIG = SpeculativeConfig(method="draft_model", quantization="int4", num_speculative_tokens=4)
PROMPT = [(i * 5) % 39 + 1 for i in range(21)]


class Draft:
    """Attributes: rows: of each step. chance: how often it says what the model says; is_broken: it fails."""

    def __init__(self, num_blocks: int, block_size: int, max_tokens: int, chance: float = 1.0) -> None:
        self.slots = [[-1] * block_size for _ in range(num_blocks)]
        self.size, self.max_tokens, self.chance = block_size, max_tokens, chance
        self.rows: list[int] = []
        self.is_broken = False
        self._random = random.Random(3)

    def __call__(self, plan: StepPlan) -> StepResult:
        assert 0 < plan.num_tokens == sum(len(work.token_ids) for work in plan.work) <= self.max_tokens
        assert len({work.seq_id for work in plan.work}) == len(plan.work)
        if self.is_broken:
            raise InvariantError("sequence 0: logits are not numbers")
        self.rows.append(plan.num_tokens)
        result = StepResult([])
        for work in plan.work:
            (table,) = work.block_tables
            end = work.num_computed_tokens + len(work.token_ids)
            for position, token in zip(range(work.num_computed_tokens, end), work.token_ids, strict=True):
                self.slots[table[position // self.size]][position % self.size] = token
            history = [self.slots[table[i // self.size]][i % self.size] for i in range(end)]
            for task in work.samples:
                assert history == [*task.prompt_token_ids, *task.output_token_ids], "it guesses from something else"
                assert task.params.logprobs is None
                token = next_token(history, task.seed)
                if self._random.random() >= self.chance:
                    token = (token + 1) % VOCAB_SIZE
                result.tokens.append(SampledToken(work.seq_id, token))
        return result


class Head(Draft):
    """A head: of each position it stores the token behind it, and sees that the model has left there what it leaves.

    Attributes: toy: the model.
    """

    toy: ToyExecutor

    def __call__(self, plan: StepPlan) -> StepResult:
        assert 0 < plan.num_tokens == sum(len(work.token_ids) for work in plan.work) <= self.max_tokens
        self.rows.append(plan.num_tokens)
        result = StepResult([])
        for work in plan.work:
            (table,) = work.block_tables
            end = work.num_computed_tokens + len(work.token_ids)
            for position, token in zip(range(work.num_computed_tokens, end), work.token_ids, strict=True):
                self.slots[table[position // self.size]][position % self.size] = token
            for task in work.samples:
                tokens = [*task.prompt_token_ids, *task.output_token_ids]
                assert len(tokens) == end + 1 and tokens[end - len(work.token_ids) + 1 :] == list(work.token_ids)
                for position in range(end):
                    block, place = table[position // self.size], position % self.size
                    # the last place of a shared block is of whoever came last: the tokens behind it may differ
                    is_shared = place == self.size - 1
                    assert is_shared or self.slots[block][place] == tokens[position + 1], "it guesses from another"
                    if position < work.num_computed_tokens or len(work.token_ids) > 1:
                        self._check_state(block, place, tokens[: position + 1], len(tokens) - position)
                token = next_token(tokens, task.seed)
                if self._random.random() >= self.chance:
                    token = (token + 1) % VOCAB_SIZE
                result.tokens.append(SampledToken(work.seq_id, token))
        return result

    def _check_state(self, block: int, place: int, tokens: list[int], num_behind: int) -> None:
        """What the model has left, but of tokens that are guesses, which are among the last."""
        if num_behind > 1 + CONFIG.num_speculative_tokens:
            assert self.toy.layers[1][block][place] == checksum(tokens), "a state of another history is read"


class Assistant(Head):
    """A head without a cache: it guesses at the last position that the model has computed, again and again."""

    def __call__(self, plan: StepPlan) -> StepResult:
        assert 0 < plan.num_tokens == len(plan.work)
        self.rows.append(plan.num_tokens)
        result = StepResult([])
        for work in plan.work:
            (task,), position = work.samples, work.num_computed_tokens
            tokens = [*task.prompt_token_ids, *task.output_token_ids]
            assert list(work.token_ids) == tokens[-1:] and position <= len(tokens) - 2
            table, known = work.block_tables[0], prefix_checksums(tokens[: position + 1])
            found = [self.toy.layers[1][table[i // self.size]][i % self.size] for i in range(position + 1)]
            assert found == known, "keys of another history are read"
            token = next_token(tokens, task.seed)
            if self._random.random() >= self.chance:
                token = (token + 1) % VOCAB_SIZE
            result.tokens.append(SampledToken(work.seq_id, token))
        return result


READS: dict[type[Draft], Literal["", "states", "cache"]] = {Draft: "", Head: "states", Assistant: "cache"}


class Free(Pacing):
    """A row costs nothing."""

    def begin(self, num_rows: int) -> float:
        return 0.0

    def take(self, probability: float) -> bool:
        return True


def give_freely(patch: pytest.MonkeyPatch) -> None:
    """Every sequence has all drafts in every step."""
    patch.setattr("albireo.engine.drafting.Pacing", Free)
    for name in ("PATIENCE", "PATIENCE_OF_HEADS"):
        patch.setattr(f"albireo.engine.model_drafts.{name}", 10**6)
    for name in ("TRIAL_EVERY", "LATER_TRIAL_EVERY"):
        patch.setattr(f"albireo.engine.model_drafts.{name}", 10**6)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    give_freely(monkeypatch)


def drafting(bench: Any, chance: float = 1.0, kind: type[Draft] = Draft, **kwargs: Any) -> tuple[Any, Draft]:
    kwargs = {"speculative": CONFIG, "num_blocks": 64, "max_num_batched_tokens": 512, **kwargs}
    draft = kind(kwargs["num_blocks"], 8, kwargs["max_num_batched_tokens"], chance)
    run = bench(Method(1, execute=draft, reads=READS[kind]), **kwargs)
    if isinstance(draft, Head):
        draft.toy = run.toy
    return run, draft


def test_long_prompts_are_caught_up_with_step_by_step(bench: Any, free: None) -> None:
    """No step of the draft model is longer than one of the model may be; meanwhile there are no drafts."""
    run, draft = drafting(bench, max_num_batched_tokens=16)
    run.add(PROMPT * 3, max_tokens=40)
    run.run()
    run.check_all_ended()
    assert draft.rows[:3] == [16, 16, 16]
    assert run.engine.stats().num_accepted_tokens > 10


def test_continuations_share_what_they_share(bench: Any, free: None) -> None:
    run, draft = drafting(bench, 0.7)
    run.add(PROMPT, n=3, max_tokens=17)
    run.run()
    run.check_all_ended()
    assert sum(draft.rows[:1]) <= 3 * 22


def test_states_go_back_to_before_wrong_drafts(bench: Any, free: None) -> None:
    run, _ = drafting(bench, 0.8, num_state_slots=9, max_num_seqs=3)
    for i in range(3):
        run.add([*PROMPT, i], max_tokens=30)
    run.run()
    run.check_all_ended()
    stats = run.engine.stats()
    assert 20 < stats.num_accepted_tokens < stats.num_draft_tokens


def test_a_draft_model_that_fails_is_left_out(bench: Any, free: None, caplog: pytest.LogCaptureFixture) -> None:
    run, draft = drafting(bench)
    run.add(PROMPT, max_tokens=25)
    for _ in range(3):
        run.step()
    draft.is_broken = True
    for i in range(12):
        run.add([*PROMPT, i], max_tokens=25)
    run.run()
    run.check_all_ended()
    assert caplog.text.count("the draft model failed for sequence") == MOST_FAILED - 1
    assert "the draft model failed 8 times, there are no drafts from now on" in caplog.text
    assert 0 < run.engine.stats().num_draft_tokens < 24


def test_one_that_no_guess_can_be_drawn_for_takes_none_from_others(bench: Any, free: None) -> None:
    run, draft = drafting(bench)
    guesses = run.engine._scheduler.places.drafting._model._guesses

    def picky(plan: StepPlan) -> StepResult:
        if any(work.seq_id == 1 for work in plan.work):
            raise InvariantError("sequence 1: no token is left")
        return draft(plan)

    guesses._execute = picky
    for i in range(3):
        run.add([*PROMPT, i], max_tokens=25)
    run.step()
    run.step()
    assert not guesses.can_guess(run.engine._requests["1"].sequences[0])
    run.run()
    run.check_all_ended()
    assert run.engine.stats().num_accepted_tokens > 30 and not guesses._barred


def test_who_interrupts_a_guess_interrupts_a_step(bench: Any, free: None) -> None:
    run, draft = drafting(bench)
    for i in range(3):
        run.add([*PROMPT, i], max_tokens=15)
    for _ in range(3):
        run.step()

    def interrupted(plan: StepPlan) -> StepResult:
        raise KeyboardInterrupt

    model = run.engine._scheduler.places.drafting._model._guesses
    model._execute = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.step()
    run.engine.check_invariants()
    model._execute = draft
    run.run()
    run.check_all_ended()


def test_a_draft_model_that_is_wrong_is_asked_seldom(bench: Any) -> None:
    """Its steps are seen to take time; now and then it is tried again."""
    run, draft = drafting(bench, 0.0, max_model_len=400)
    clock = run._clock
    seen = 0

    def slow() -> float:
        nonlocal seen
        run.now += 5.0 * (len(draft.rows) - seen)
        seen = len(draft.rows)
        return float(clock())

    run.engine._clock = slow
    run.add(PROMPT[:3], max_tokens=300)
    run.run()
    run.check_all_ended()
    assert 2 <= run.engine.stats().num_drafts < 60


def test_a_prompt_is_caught_up_with_when_enough_was_decoded_to_believe_in_more(bench: Any) -> None:
    """And what it takes says nothing of a step with drafts; some of the first steps have none."""
    run, draft = drafting(bench)
    run.add(PROMPT * 2, max_tokens=60)
    while not draft.rows:
        run.step()
    num_decoded = draft.rows[0] - 42
    assert PATIENCE * (num_decoded - 1) < 42 + num_decoded - 1 and PATIENCE * num_decoded >= 42 + num_decoded
    assert run.engine._scheduler.places.drafting._model.is_usual is False
    run.run()
    run.check_all_ended()
    plain = [plan for plan in run.toy.plans if plan[0][1] == 1]
    assert len(plain) >= 5 and run.engine.stats().num_accepted_tokens > 20


def test_ids_that_the_model_does_not_have_are_no_drafts(bench: Any, free: None) -> None:
    run, _ = drafting(bench)
    run.engine._scheduler.places.drafting._model._guesses._execute = lambda plan: StepResult(
        [SampledToken(work.seq_id, VOCAB_SIZE) for work in plan.work]
    )
    run.add(PROMPT, max_tokens=9)
    run.run()
    run.check_all_ended()
    assert run.engine.stats().num_draft_tokens == 0


def test_sequences_longer_than_it_knows_have_no_drafts(bench: Any, free: None) -> None:
    draft = Draft(64, 8, 512)
    run = bench(Method(1, execute=draft, max_positions=24), speculative=CONFIG, max_num_batched_tokens=512)
    run.add(PROMPT, max_tokens=20)
    run.run()
    run.check_all_ended()
    assert run.engine.stats().num_draft_tokens == 2


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        # the prompt's step gives one token, two steps five each; behind four drafts that came true three were fed
        (Draft, [22, 1, 1, 1, 2, 1, 1, 1]),
        # all but the last token have a state; what was a guess is computed again: five more tokens, five more states
        (Head, [21, 1, 1, 1, 5, 1, 1, 1]),
        (Assistant, [1] * 8),
    ],
)
def test_a_guess_is_a_step_for_each_draft_and_the_first_has_what_is_missing(
    bench: Any, free: None, kind: type[Draft], rows: list[int]
) -> None:
    run, draft = drafting(bench, kind=kind)
    run.add(PROMPT, max_tokens=11)
    run.run()
    run.check_all_ended()
    assert draft.rows == rows
    stats = run.engine.stats()
    assert (stats.num_draft_tokens, stats.num_accepted_tokens) == (8, 8)


@pytest.mark.parametrize(("kind", "num_missing"), [(Draft, 35 - 24), (Head, 34 - 23)])
def test_what_others_left_is_found(bench: Any, free: None, kind: type[Draft], num_missing: int) -> None:
    """The next turn: blocks that the draft model has filled are not computed again; by a head the last position is,
    which had read a token behind that need not be this one's."""
    run, draft = drafting(bench, kind=kind)
    run.add(PROMPT, max_tokens=11)
    run.run()
    draft.rows.clear()
    run.add([*PROMPT, *run.tokens["0", 0], 9, 9], max_tokens=6)
    run.run()
    run.check_all_ended()
    # 34 tokens and the first of the answer, of which three blocks of 8 are there
    assert draft.rows == [num_missing, 1, 1, 1]


def test_a_prompt_is_caught_up_with_sooner_by_a_head(bench: Any) -> None:
    run, head = drafting(bench, kind=Head, max_model_len=400)
    run.add(PROMPT * 12, max_tokens=60)
    while not head.rows:
        run.step()
    num_decoded = head.rows[0] + 1 - 252
    assert PATIENCE_OF_HEADS * (num_decoded - 1) < 252 < PATIENCE_OF_HEADS * num_decoded


@more_examples(2)
@given(
    setup=st.one_of(setups, setups, recurrent_setups.map(lambda setup: setup | {"lookahead": 0})),
    script=st.lists(events, min_size=12, max_size=40),
    chance=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    max_draft_rows=st.sampled_from([1, 3, 64]),
    is_free=st.sampled_from([True, True, False]),
    kind=st.sampled_from([Draft, Head, Assistant]),
)
def test_whatever_happens_its_cache_holds_what_it_is_thought_to_hold(
    bench: Any,
    step_failed: type[Exception],
    setup: dict[str, Any],
    script: list[tuple[str, Any]],
    chance: float,
    max_draft_rows: int,
    is_free: bool,
    kind: type[Draft],
) -> None:
    draft = kind(setup["num_blocks"], 8, setup["max_num_batched_tokens"], chance)
    with pytest.MonkeyPatch.context() as patch:
        if is_free:
            give_freely(patch)
        method = Method(1, execute=draft, reads=READS[kind])
        run = bench(method, **setup, speculative=CONFIG, max_draft_rows=max_draft_rows)
        if isinstance(draft, Head):
            draft.toy = run.toy
        for event in script:
            apply(run, event, step_failed)
        run.run()
    run.check_all_ended()
    assert not run.engine._scheduler.places.drafting._model._guesses._num_failed
