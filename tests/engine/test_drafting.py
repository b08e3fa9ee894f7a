"""Drafts: whatever is guessed, every continuation has the tokens it gets alone; and drafts take only what is free."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.errors import InvariantError
from albireo.speculative.proposer import Method
from albireo.speculative_config import SpeculativeConfig
from albireo.step import SampledToken, StepPlan, StepResult
from engine.conftest import EOS, VOCAB_SIZE, ToyExecutor, next_token
from engine.test_properties import apply, events, prompt_logprobs, recurrent_setups, setups
from in_turn import in_turn

CONFIG = SpeculativeConfig(method="ngram", num_speculative_tokens=4)


class Knowing:
    """Knows what the toy says to a prompt with a seed, and guesses it, up to a place at which it is wrong."""

    def __init__(self, prompt: Sequence[int], seed: int, wrong_at: int | None = None) -> None:
        self._prompt, self._seed, self._wrong_at = prompt, seed, wrong_at

    def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
        history = [*self._prompt, *output_token_ids]
        drafts: list[int] = []
        while len(drafts) < num:
            drafts.append(next_token([*history, *drafts], self._seed))
        if self._wrong_at is not None and self._wrong_at < num:
            drafts[self._wrong_at] = (drafts[self._wrong_at] + 1) % VOCAB_SIZE
        return drafts, 0


class Random:
    """Finds out the seed from what came, and guesses right for a random while."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._prompt = prompt
        self._random = random.Random(zlib.crc32(bytes(prompt)))

    def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
        seed = next((seed for seed in range(9) if self._fits(seed, output_token_ids)), 0)
        knowing = Knowing(self._prompt, seed, self._random.choice([None, None, 0, 1, 2, 3]))
        return knowing.propose(output_token_ids, self._random.randint(1, num))

    def _fits(self, seed: int, output: Sequence[int]) -> bool:
        places = range(max(0, len(output) - 4), len(output))
        return all(next_token([*self._prompt, *output[:place]], seed) == output[place] for place in places)


def always_right(prompt: Sequence[int]) -> Knowing:
    return Knowing(prompt, 7)


def always_wrong(prompt: Sequence[int]) -> Knowing:
    return Knowing(prompt, 7, wrong_at=0)


RIGHT, WRONG, RANDOM = Method(1, always_right), Method(1, always_wrong), Method(1, Random)


def drafting(bench: Any, method: Method | None = RIGHT, **kwargs: Any) -> Any:
    return bench(method, **{"speculative": CONFIG, **kwargs})


def test_drafts_that_come_true_save_steps(bench: Any) -> None:
    run = drafting(bench)
    run.add([1, 2, 3], max_tokens=31)
    # The prompt's step gives one token; then each first guess is half believed, and ever more.
    assert run.run() < 15
    run.check_all_ended()
    stats = run.engine.stats()
    assert stats.num_draft_tokens == stats.num_accepted_tokens == sum(stats.num_accepted_tokens_per_pos)
    assert stats.generation_tokens == 31 == 1 + stats.num_drafts + stats.num_accepted_tokens
    assert stats.num_accepted_tokens_per_pos[0] == stats.num_drafts


def test_drafts_that_are_wrong_are_counted_and_given_up(bench: Any) -> None:
    run = drafting(bench, WRONG, max_model_len=400)
    run.add([1, 2, 3], max_tokens=300)
    assert run.run() == 300
    run.check_all_ended()
    stats = run.engine.stats()
    assert (stats.num_accepted_tokens, stats.num_accepted_tokens_per_pos) == (0, [0, 0, 0, 0])
    assert 0 < stats.num_draft_tokens < 60, "it goes on though it is always wrong"


def test_what_is_only_guessed_at_first_is_believed_when_it_comes_true(bench: Any) -> None:
    """Guesses that are not computed are judged too."""
    method = Method(1, lambda prompt: Changing(prompt))
    run = drafting(bench, method, max_model_len=400)
    run.add([1, 2, 3], max_tokens=300)
    run.run()
    run.check_all_ended()
    assert run.engine.stats().num_accepted_tokens > 100


def test_beside_very_short_steps_few_guesses_are_made(bench: Any) -> None:
    """A guess takes microseconds: in steps that take no longer, only those whose guesses are believed are asked."""
    asked: list[int] = []

    class Counting:
        def __init__(self, prompt: Sequence[int]) -> None:
            self._inner = always_right(prompt) if prompt[0] == 0 else always_wrong(prompt)
            self._first = prompt[0]

        def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
            asked.append(self._first)
            return self._inner.propose(output_token_ids, num)

    for scale, limit in ((1.0, 3 * 120), (2e-4, 150)):
        asked.clear()
        run = drafting(bench, Method(1, Counting), max_model_len=200, num_blocks=200)
        run.engine._clock = lambda clock=run._clock, scale=scale: scale * clock()
        for start in range(4):
            run.add([start, 2, 3], max_tokens=120)
        run.run()
        run.check_all_ended()
        assert asked.count(0) < 60 <= asked.count(1) + asked.count(2) + asked.count(3) <= limit, scale
    assert run.engine.stats().num_accepted_tokens > 60, "the one that is right is believed and asked"


class Changing:
    """Wrong for the first hundred tokens, right from then on."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._wrong, self._right = always_wrong(prompt), always_right(prompt)

    def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
        return (self._wrong if len(output_token_ids) < 100 else self._right).propose(output_token_ids, num)


@in_turn(
    ("method", [RIGHT, WRONG, RANDOM, None]),
    (
        "params",
        [
            {"ignore_eos": False, "max_tokens": None},
            {"stop_token_ids": (3, 11, 25), "max_tokens": None},
            {"max_tokens": 2},
            {"max_tokens": 6, "logprobs": 0},
            {"max_tokens": 30, "n": 3},
            {"min_tokens": 20, "ignore_eos": False, "stop_token_ids": tuple(range(8)), "max_tokens": 40},
            {"prompt_logprobs": 0, "max_tokens": 9},
        ],
    ),
)
def test_the_tokens_are_those_without_drafts(bench: Any, method: Method | None, params: dict[str, Any]) -> None:
    run = drafting(bench, method, max_model_len=80)
    for start in range(4):
        run.add([start, 2, 3] * 3, **params)
    run.run()
    run.check_all_ended()
    assert run.engine.stats().generation_tokens == sum(map(len, run.tokens.values()))


def test_one_update_a_step_has_all_its_tokens_and_their_logprobs(bench: Any) -> None:
    run = drafting(bench)
    run.add([1, 2, 3], max_tokens=12, logprobs=0)
    updates = [update for _ in range(12) if run.engine.has_work() for update in run.step()]
    assert max(len(update.token_ids) for update in updates) > 2
    for update in updates:
        assert [entry.token_ids[0] for entry in update.logprobs] == update.token_ids
    assert [update.is_request_finished for update in updates] == [False] * (len(updates) - 1) + [True]


def test_drafts_take_only_rows_that_are_left(bench: Any) -> None:
    run = drafting(bench, max_num_batched_tokens=7, max_num_seqs=4)
    for start in range(4):
        run.add([start, 5, 6], max_tokens=40)
    run.run()
    run.check_all_ended()
    assert run.toy.num_drafts > 0, "three tokens are left beside four"


def test_drafts_take_at_most_the_rows_there_are_for_them(bench: Any) -> None:
    run = drafting(bench, max_draft_rows=2)
    for start in range(3):
        run.add([start, 5, 6], max_tokens=40)
    run.run()  # the toy counts them
    run.check_all_ended()
    assert run.toy.num_drafts > 0


def test_rows_go_to_the_likeliest_drafts_of_all(bench: Any) -> None:
    """The first drafts of all who are as likely before the second of any."""
    run = drafting(bench, max_draft_rows=6)
    for start in range(4):
        run.add([start, 5, 6], max_tokens=60)
    for _ in range(6):
        run.step()
    nums = [num for _, num, _ in run.toy.plans[-1].values()]
    assert sorted(nums) == [2, 2, 3, 3], "six drafts behind four tokens"


def test_no_drafts_beside_prompts(bench: Any) -> None:
    run = drafting(bench, max_num_batched_tokens=8)
    run.add([1, 2, 3], max_tokens=60)
    run.step()
    run.add([9] * 40, max_tokens=3)
    while run.engine.stats().prompt_tokens < 43:
        run.step()
        assert run.toy.num_drafts == 0
    run.run()
    run.check_all_ended()
    assert run.toy.num_drafts > 0


def test_nobody_is_preempted_for_drafts_and_their_blocks_are_given_back(bench: Any) -> None:
    """A pool that is exactly large enough for what is known: with drafts, too, everybody stays."""
    kwargs = {"num_blocks": 9, "block_size": 8, "enable_prefix_caching": False}
    for method in (WRONG, RIGHT):
        run = drafting(bench, method, **kwargs)
        for start in range(4):
            run.add([start, 5, 6], max_tokens=13)  # 15 positions each: two blocks
        while run.engine.has_work():
            run.step()
            for seq in run.engine.blocks()[0]:
                assert len(seq.block_tables[0]) <= -(-seq.num_tokens // 8), "it kept a block for drafts"
        run.check_all_ended()
        assert run.engine.stats().num_preemptions == 0


def test_blocks_that_drafts_filled_are_found_by_others(bench: Any) -> None:
    run = drafting(bench)
    run.add([1, 2, 3], max_tokens=45)
    run.run()
    assert run.engine.stats().num_accepted_tokens > 20
    prompt = [1, 2, 3, *run.tokens["0", 0]]
    run.add(prompt, max_tokens=1)
    run.run()
    run.check_all_ended()
    assert run.last["1"].progress.num_cached_tokens == 40, "47 positions are computed: five full blocks"


def test_a_block_with_a_wrong_draft_is_never_found(bench: Any) -> None:
    """Guesses that are right but for the third are in the cache up to the second."""
    method = Method(1, lambda prompt: Knowing(prompt, 7, wrong_at=2))
    run = drafting(bench, method)
    run.add([1, 2, 3], max_tokens=60)
    run.run()
    assert 0 < run.engine.stats().num_accepted_tokens < run.engine.stats().num_draft_tokens
    wrong = [1, 2, 3, *run.tokens["0", 0]]
    for end in range(8, 60, 8):
        run.add([*wrong[: end - 1], (wrong[end - 1] + 1) % VOCAB_SIZE, 4], max_tokens=1)
    run.run()
    run.check_all_ended()  # the toy reads back what every block holds
    assert [run.last[str(i)].progress.num_cached_tokens for i in range(1, 8)] == list(range(0, 56, 8))


def test_a_step_that_fails_keeps_nothing_of_its_drafts(bench: Any, step_failed: type[Exception]) -> None:
    run = drafting(bench, num_blocks=9, max_model_len=60)
    run.add([1, 2, 3], max_tokens=40)
    for _ in range(3):
        run.step()
    with pytest.raises(step_failed):
        run.step(fail="within")
    (seq,) = run.engine.blocks()[0]
    assert len(seq.block_tables[0]) == -(-seq.num_tokens // 8)
    before = run.toy.num_drafts
    run.step()
    assert run.toy.num_drafts == before, "the step after it asks no more than it must"
    run.run()
    run.check_all_ended()


def test_a_result_must_say_what_became_of_each_draft(bench: Any) -> None:
    run = drafting(bench)
    run.add([1, 2, 3], max_tokens=40)

    def cut(plan: StepPlan) -> StepResult:
        result = ToyExecutor.__call__(run.toy, plan)
        return StepResult(result.tokens[:-1]) if plan.num_drafts else result

    run.engine._execute = cut
    run.step()
    with pytest.raises(InvariantError, match="tokens were asked for sequences"):
        run.step()

    def more(plan: StepPlan) -> StepResult:
        result = ToyExecutor.__call__(run.toy, plan)
        return StepResult([*result.tokens, SampledToken(result.tokens[-1].seq_id, EOS)])

    run.engine._execute = more
    with pytest.raises(InvariantError, match="tokens were asked for sequences"):
        run.step()


def test_proposers_go_with_their_sequences(bench: Any) -> None:
    run = drafting(bench)
    for start in range(3):
        run.add([start, 2], max_tokens=20 + start, n=2)
    run.step()
    run.abort("1")
    run.run()
    assert run.engine._scheduler.places.drafting._guesses == {}


drafters = st.sampled_from([RANDOM, RANDOM, RANDOM, WRONG, None])
configs = st.builds(
    SpeculativeConfig,
    method=st.just("ngram"),
    num_speculative_tokens=st.integers(1, 9),
    prompt_lookup_min=st.integers(1, 2),
    prompt_lookup_max=st.integers(2, 4),
)


@given(
    setup=st.one_of(setups, setups, recurrent_setups.map(lambda setup: setup | {"lookahead": 0})),
    script=st.lists(events, min_size=12, max_size=40),
    method=drafters,
    config=configs,
    max_draft_rows=st.sampled_from([1, 3, 64]),
)
def test_whatever_happens_and_whatever_is_guessed(
    bench: Any,
    step_failed: type[Exception],
    setup: dict[str, Any],
    script: list[tuple[str, Any]],
    method: Method | None,
    config: SpeculativeConfig,
    max_draft_rows: int,
) -> None:
    run = bench(method, **setup, speculative=config, max_draft_rows=max_draft_rows)
    for event in script:
        apply(run, event, step_failed)
    run.run()
    run.check_all_ended()
    for request_id, update in run.last.items():
        prompt, params = run.added[request_id]
        if params.prompt_logprobs is not None and run.tokens[request_id, update.index]:
            assert update.progress.prompt_logprobs == prompt_logprobs(prompt)


class Form:
    """A grammar that lets everything come, and knows of the first tokens. num_asked: how often it was asked."""

    eos_token_ids = (EOS,)

    def __init__(self, text: Sequence[int]) -> None:
        self._text = list(text)
        self.num_asked = 0

    def matcher(self) -> Form:
        return self

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        return b"\xff" * 16

    def ahead(self, output_token_ids: Sequence[int], draft_token_ids: Sequence[int]) -> list[bytes]:
        return [b"\xff" * 16 for _ in draft_token_ids]

    def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
        self.num_asked += 1
        known = len(output_token_ids)
        return self._text[known:] if self._text[:known] == list(output_token_ids) else []


def test_what_a_grammar_forces_is_guessed_before_what_stood_there_earlier(bench: Any) -> None:
    """And where it says nothing the proposer is asked; both guesses have their own acceptance rates."""
    prompt = [3, 4, 5, 6]
    text: list[int] = []
    while len(text) < 10:
        text.append(next_token([*prompt, *text], 7))
    form = Form(text)
    run = drafting(bench, WRONG, max_model_len=64)
    run.add(prompt, max_tokens=20, seed=7, ignore_eos=True, structured_outputs={"regex": "a"}, constraint=form)
    run.run()
    run.check_all_ended()
    stats = run.engine.stats()
    assert form.num_asked > 3 and 6 <= stats.num_accepted_tokens < stats.num_draft_tokens


def test_what_a_tokenizer_has_and_the_model_has_not_is_no_draft(bench: Any) -> None:
    """There is no embedding of it to be read."""
    prompt = [3, 4, 5, 6]
    first = next_token(prompt, 7)
    form = Form([first, next_token([*prompt, first], 7), VOCAB_SIZE, 1])
    run = drafting(bench, WRONG, max_model_len=64)
    drafted: list[int] = []

    def execute(plan: StepPlan) -> StepResult:
        drafted.extend(token for work in plan.work for token in work.draft_token_ids)
        return run.toy(plan)

    run.engine._execute = execute
    run.add(prompt, max_tokens=6, seed=7, ignore_eos=True, structured_outputs={"regex": "a"}, constraint=form)
    run.run()
    run.check_all_ended()
    assert form.num_asked and drafted and max(drafted) < VOCAB_SIZE


def test_a_grammar_that_cannot_guess_harms_nobody(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Form):
        def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
            raise ValueError("it is broken")

    run = drafting(bench, WRONG, max_model_len=64)
    run.add([3, 4, 5], max_tokens=6, ignore_eos=True, structured_outputs={"regex": "a"}, constraint=Broken([1]))
    run.add([3, 4, 6], max_tokens=6, ignore_eos=True)
    run.run()
    run.check_all_ended()
    assert "sequence 0 gives no guess: it is broken" in caplog.text
