"""Drafts where the device begins the next step while this one is reported: what waiting costs is in the price.

A device and a host with clocks of their own: a step that was begun ahead follows the one before it at once; one that
was not begins when the host has planned it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from albireo.engine.engine import Engine
from albireo.engine.settings import EngineSettings
from albireo.engine.stats import EngineStats
from albireo.params import SamplingParams
from albireo.speculative.proposer import Method
from albireo.speculative_config import SpeculativeConfig
from albireo.step import StepPlan, StepResult
from engine.conftest import VOCAB_SIZE, ToyExecutor
from engine.test_drafting import Knowing
from engine.test_model_guesses import Draft

Seconds = Callable[[int], float]


def memory_bound(rows: int) -> float:
    return 0.005 + 0.00002 * rows


def compute_bound(rows: int) -> float:
    return 0.0005 * rows


class Sometimes:
    """Each draft is right with a probability, if those before it are; there is a guess with another."""

    def __init__(self, prompt: Sequence[int], right: float, there: float) -> None:
        self._prompt, self._right, self._there = prompt, right, there
        self._random = random.Random(sum(prompt))

    def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
        if self._random.random() >= self._there:
            return [], 0
        drafts = Knowing(self._prompt, 7).propose(output_token_ids, num)[0]
        for place in range(num):
            if self._random.random() >= self._right:
                drafts[place] = (drafts[place] + 1) % VOCAB_SIZE
                break
        return drafts, 0


class Timed:
    """An engine on such a device.

    Fields: now: seconds. kinds: of its steps: with Prompts, with Drafts, 1 token each; w: it waits.
    """

    def __init__(
        self,
        settings: EngineSettings,
        seconds: Seconds,
        host_s: float,
        method: Method | None,
        guesses: Callable[[StepPlan], StepResult] | None = None,
        guess_s: float = 0.0,
    ) -> None:
        """Args: guesses: what a draft model says, in steps of guess_s; then there is no method."""
        self._toy, self._seconds, self._host_s = ToyExecutor(settings), seconds, host_s
        self.now = self._ready = 0.0
        self._is_begun = False
        self.kinds = ""
        self._guesses, self._guess_s, self.num_guess_steps = guesses, guess_s, 0
        method = method if guesses is None else Method(1, execute=self._guess)
        self.engine = Engine(settings, self._execute, lambda: self.now, method)

    def _guess(self, plan: StepPlan) -> StepResult:
        assert not self._is_begun and plan.waits, "the device computes something else"
        assert self._guesses is not None
        self.now += self._guess_s
        self.num_guess_steps += 1
        return self._guesses(plan)

    def _execute(self, plan: StepPlan) -> StepResult:
        self.now += self._host_s / 2
        self._ready = (self._ready if self._is_begun else self.now) + self._seconds(plan.num_tokens)
        self.now = max(self.now, self._ready)
        assert not (plan.num_drafts and self._is_begun), "it was begun without its drafts"
        self._is_begun = not plan.waits
        num_others = plan.num_tokens - plan.num_drafts - len(plan.work)
        self.kinds += ("P" if num_others else "D" if plan.num_drafts else "1") + ("w" if plan.waits else " ")
        return self._toy(plan)

    def run(self, num_running: int, num_tokens: int) -> EngineStats:
        for start in range(num_running):
            params = SamplingParams(max_tokens=num_tokens, ignore_eos=True, seed=7)
            self.engine.add_request(str(start), [start % VOCAB_SIZE, start // VOCAB_SIZE, 2], params)
        while self.engine.has_work():
            self.engine.step()
            self.now += self._host_s / 2
        return self.engine.stats()


def settings_of(config: SpeculativeConfig | None, num_running: int, num_tokens: int) -> EngineSettings:
    return EngineSettings(
        num_blocks=num_running * (num_tokens // 8 + 3) + 2,
        block_size=8,
        max_model_len=num_tokens + 8,
        max_num_seqs=num_running,
        max_num_batched_tokens=128,
        lookahead=1,
        eos_token_ids=frozenset({0}),
        vocab_size=VOCAB_SIZE,
        speculative=config,
    )


def ratio(
    seconds: Seconds, host: float, right: float, there: float = 1.0, num_running: int = 1, num_tokens: int = 300
) -> tuple[float, EngineStats]:
    """How much longer it takes without drafts. host: what the host does, as a fraction of a step."""
    host_s = host * seconds(num_running)
    config = SpeculativeConfig(method="ngram", num_speculative_tokens=5)
    method = Method(1, lambda prompt: Sometimes(prompt, right, there))
    drafting = Timed(settings_of(config, num_running, num_tokens), seconds, host_s, method)
    stats = drafting.run(num_running, num_tokens)
    plain = Timed(settings_of(None, num_running, num_tokens), seconds, host_s, None)
    plain.run(num_running, num_tokens)
    assert stats.generation_tokens == num_running * num_tokens
    return plain.now / drafting.now, stats


@pytest.mark.parametrize(
    ("host", "right", "there", "num_running", "least"),
    [(0.1, 1.0, 1.0, 1, 4.5), (0.1, 0.7, 1.0, 1, 2.0), (0.3, 0.9, 0.3, 1, 1.15), (0.1, 0.9, 1.0, 8, 2.5)],
)
def test_guesses_that_come_true_are_waited_for(
    host: float, right: float, there: float, num_running: int, least: float
) -> None:
    found, stats = ratio(memory_bound, host, right, there, num_running, 300 if num_running == 1 else 100)
    assert found >= least and stats.num_accepted_tokens > 60


@pytest.mark.parametrize(
    ("seconds", "host", "right", "there", "num_running"),
    [
        (memory_bound, 0.9, 0.5, 1.0, 1),
        (memory_bound, 0.3, 0.0, 1.0, 1),
        (memory_bound, 0.3, 0.2, 0.5, 1),
        (memory_bound, 0.9, 0.3, 1.0, 8),
        (compute_bound, 0.1, 0.9, 1.0, 1),
        (compute_bound, 0.3, 0.9, 0.3, 8),
    ],
)
def test_what_is_not_worth_the_wait_costs_next_to_nothing(
    seconds: Seconds, host: float, right: float, there: float, num_running: int
) -> None:
    """Neither where guesses are wrong, nor where the host takes as long as the device, nor where rows are dear."""
    assert ratio(seconds, host, right, there, num_running, 300 if num_running == 1 else 100)[0] > 0.97


def test_nothing_is_waited_for_where_there_is_no_guess() -> None:
    """Not one step: the device is as busy as without."""
    found, stats = ratio(memory_bound, 0.3, 1.0, there=0.0, num_tokens=50)
    assert (found, stats.num_drafts) == (1.0, 0)


def with_model(host: float, chance: float, guess: float, num_tokens: int = 300) -> tuple[float, Timed]:
    """As ratio(), of one stream whose draft model is right with a chance. guess: its step, as a fraction of one."""
    step = memory_bound(1)
    config = SpeculativeConfig(method="draft_model", quantization="int4", num_speculative_tokens=4)
    settings = settings_of(config, 1, num_tokens)
    draft = Draft(settings.num_blocks, 8, settings.max_num_batched_tokens, chance)
    drafting = Timed(settings, memory_bound, host * step, None, draft, guess * step)
    assert drafting.run(1, num_tokens).generation_tokens == num_tokens
    plain = Timed(settings_of(None, 1, num_tokens), memory_bound, host * step, None)
    plain.run(1, num_tokens)
    return plain.now / drafting.now, drafting


def test_a_draft_model_is_waited_for() -> None:
    """Four drafts for 1.5 steps, at a host that takes a tenth of one; steps without any are seen now and then, and
    nothing is begun behind them. What catches up with the prompt, too, is waited for."""
    found, run = with_model(0.1, 1.0, 0.1)
    assert found > 2.7
    assert run.kinds.startswith("P 1 1wDwDwDw1wDw") and run.kinds.count("1w") > 5 and run.kinds.count("1 ") < 3
    found, run = with_model(0.1, 0.8, 0.1)
    assert found > 1.5


@pytest.mark.parametrize(("host", "chance", "guess"), [(0.1, 0.0, 0.2), (0.3, 0.3, 0.3), (0.9, 0.4, 0.2)])
def test_a_draft_model_that_is_not_worth_it_is_tried_seldom(host: float, chance: float, guess: float) -> None:
    found, run = with_model(host, chance, guess)
    assert found > 0.96
    assert 0 < run.num_guess_steps < 100


def test_drafts_go_on_behind_a_prompt_that_came() -> None:
    """The step that ends it waits, if somebody had drafts before; one that leaves a part of it does not."""
    config = SpeculativeConfig(method="ngram", num_speculative_tokens=2)
    method = Method(1, lambda prompt: Sometimes(prompt, 1.0, 1.0 if prompt[0] == 0 else 0.0))
    run = Timed(settings_of(config, 3, 300), memory_bound, 0.0001, method)
    params = SamplingParams(max_tokens=60, ignore_eos=True, seed=7)

    def steps(num: int) -> str:
        run.kinds = ""
        for _ in range(num):
            run.engine.step()
        return run.kinds

    run.engine.add_request("a", [0, 2], params)
    assert steps(4) == "P 1wDwDw", "nothing is known of it when its prompt ends"
    run.engine.add_request("b", [1, 3], params)
    assert steps(2) == "PwDw"
    run.engine.add_request("c", [1] * 200, params)
    assert steps(3) == "P PwDw", "two parts of 128 tokens at most"
    run.engine.abort("a")
    assert steps(2) == "1 1 "
    run.engine.abort("c")
    run.engine.add_request("d", [1, 5], params)
    assert steps(2) == "P 1 ", "nobody is left who had drafts"
