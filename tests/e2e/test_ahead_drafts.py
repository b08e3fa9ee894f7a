"""Drafts on a device that runs ahead of the engine: its tokens are those of one that waits and has none.

The stand-in of test_ahead.py, guesses that are right, wrong, or either, and a pace that is random: so that steps that
were begun ahead, steps that waited and steps with drafts follow each other in every order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from albireo.api.load import Loaded
from albireo.engine.engine import Engine
from albireo.execution.ahead import LOOKAHEAD, AheadRunner
from albireo.execution.runner import Runner
from albireo.models import load_architecture
from albireo.params import SamplingParams
from albireo.speculative.pacing import Pacing
from albireo.speculative.proposer import Method
from albireo.step import StepPlan, StepResult, TokenLogprobs
from e2e.test_ahead import NUM_HOST, VOCAB, Ask, Deferred, Served, asks, load_on_cpu, serve
from tiny_models import make_checkpoint

NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1}


class Whim(Pacing):
    """Takes drafts, and waits for them, as it likes."""

    chance = random.Random(0)

    def expected(self, num_rows: int) -> float:
        return 1.0

    def begin(self, num_rows: int) -> float:
        return 0.0

    def take(self, probability: float) -> bool:
        return self.chance.random() < 0.9

    def pays(self, num_gaps: int) -> bool:
        return self.chance.random() < 0.8


class Always(Whim):
    """Takes and waits for all."""

    def take(self, probability: float) -> bool:
        return True

    def pays(self, num_gaps: int) -> bool:
        return True


class Oracle:
    """Knows all continuations of each prompt. right: how often a draft is what comes."""

    def __init__(self, answers: dict[tuple[int, ...], list[list[int]]], right: float) -> None:
        self._answers, self._right, self._random = answers, right, random.Random(1)

    def __call__(self, prompt: Sequence[int]) -> Any:
        known, chance, right = self._answers[tuple(prompt)], self._random, self._right

        class Guess:
            def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
                output = list(output_token_ids)
                answer = next(each for each in known if each[: len(output)] == output)
                drafts = answer[len(output) : len(output) + num]
                return [draft if chance.random() < right else draft ^ 1 for draft in drafts], 0

        return Guess()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    directory = make_checkpoint(tmp_path_factory.mktemp("model"), load_architecture("llama").tiny, seed=3)
    return load_on_cpu(directory, speculative_config=NGRAM)


def more_asks(seed: int) -> list[Ask]:
    """As in test_ahead.py, one prompt each and nobody leaves; some with what depends on the output so far."""
    more: list[dict[str, Any]] = [
        {"repetition_penalty": 1.3, "frequency_penalty": 0.4},
        {"logit_bias": {5: 4.0, 6: 4.0}, "presence_penalty": 0.5},
        {"bad_words_token_ids": ((5,), (6, 7)), "allowed_token_ids": tuple(range(5, 15))},
        {"min_tokens": 3},
    ]
    found = []
    for i, ask in enumerate(asks(seed)):
        params = ask.params if i % 3 else ask.params.clone(**more[i // 3 % len(more)], n=1, max_tokens=30)
        found.append(Ask([*ask.prompt, i + 3], params.clone(max_tokens=3 + (ask.params.max_tokens or 0)), ask.comes))
    return found


@pytest.mark.parametrize(
    ("right", "num_blocks", "num_host"),
    [
        pytest.param(right, *room, marks=pytest.mark.thorough if (i + j) % 3 == 2 else ())
        for i, right in enumerate((1.0, 0.7, 0.0))
        for j, room in enumerate(((200, 0), (14, 0), (14, NUM_HOST)))
    ],
)
def test_tokens_are_those_of_a_device_that_waits_and_guesses_nothing(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, right: float, num_blocks: int, num_host: int
) -> None:
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Whim)
    device = Deferred(loaded.model)
    settings = replace(loaded.settings, num_blocks=num_blocks)
    plain = Engine(replace(settings, speculative=None), Runner(loaded.model, VOCAB, 8).execute, lambda: 0.0)
    requests = [
        ask
        for seed in range(2)
        for ask in more_asks(seed)
        if len(ask.prompt) + (ask.params.max_tokens or 0) <= (num_blocks - 1) * 8
    ]
    wanted = serve(plain, requests)
    known: dict[tuple[int, ...], list[list[int]]] = {}
    for (i, index), (tokens, _) in parted(wanted).items():
        if index >= 0:
            known.setdefault(tuple(requests[i].prompt), []).append(tokens)
    runner = AheadRunner(device, VOCAB, 8, loaded.memory.max_model_len)
    plans = Plans(runner.execute)
    drafting = Engine(
        replace(settings, lookahead=LOOKAHEAD, num_host_blocks=num_host),
        plans,
        lambda: 0.0,
        Method(1, Oracle(known, right)),
    )
    assert parted(serve(drafting, requests)) == parted(wanted)
    stats = drafting.stats()
    assert stats.num_draft_tokens > 50
    assert (stats.num_accepted_tokens > 30) == (right > 0)
    assert runner.num_found > 20, "rows were found computed"
    assert device.num_told > 20, "log-probabilities came from the device"
    assert stats.num_preemptions > 0 or num_blocks > 14
    assert plans.num_begun_with_drafts == 0, "what has drafts was begun before they were known"


def parted(served: Served) -> dict[tuple[int, int], tuple[list[int], list[TokenLogprobs]]]:
    """Tokens, and what was told of them: several tokens may have come at once."""
    return {
        key: (
            [each for each in told if isinstance(each, int)],
            [each for each in told if not isinstance(each, int)],
        )
        for key, told in served.items()
    }


class Plans:
    """Watches plans. Fields: num_begun_with_drafts: with drafts, behind one that did not wait."""

    def __init__(self, execute: Callable[[StepPlan], StepResult]) -> None:
        self._execute = execute
        self._last: StepPlan | None = None
        self.num_begun_with_drafts = 0
        self.kinds: list[str] = []

    def __call__(self, plan: StepPlan) -> StepResult:
        waited = self._last is not None and self._last.waits
        self.num_begun_with_drafts += plan.num_drafts > 0 and not waited
        assert plan.waits or not plan.num_drafts
        kind = "prompt" if plan.num_tokens - plan.num_drafts > len(plan.work) else "waited" if waited else "ahead"
        self.kinds.append(kind + "+" * (plan.num_drafts > 0))
        self._last = replace(plan)
        return self._execute(plan)


def test_a_step_ahead_then_steps_with_drafts_then_steps_ahead(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in flight behind a plan that waits; everything goes ahead again where there is nothing to guess."""
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)
    params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    request = [Ask([5, 6, 7], params, 0)]
    plain = Engine(replace(loaded.settings, speculative=None), Runner(loaded.model, VOCAB, 8).execute, lambda: 0.0)
    wanted = serve(plain, request)
    answer = [token for token in wanted[0, 0] if isinstance(token, int)]

    class Middle:
        """Guesses nothing of the last ten tokens."""

        def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
            at = len(output_token_ids)
            return answer[at : min(at + num, 14)], 0

    device = Deferred(loaded.model)
    runner = AheadRunner(device, VOCAB, 8, loaded.memory.max_model_len)
    plans = Plans(runner.execute)
    engine = Engine(
        replace(loaded.settings, lookahead=LOOKAHEAD), plans, lambda: 0.0, Method(1, lambda prompt: Middle())
    )
    assert serve(engine, request) == wanted
    # two tokens, then 5, 5, and 3, then what is left
    assert plans.kinds == ["prompt", "ahead", *["waited+"] * 3, "waited", *["ahead"] * 8]
    assert device.num_submitted == len(plans.kinds)
    assert (runner.num_found, runner.num_computed) == (9, 5)


@pytest.mark.parametrize("bad_step", [2, 3])
def test_a_step_that_cannot_be_drawn_from_is_drawn_by_the_host(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, bad_step: int
) -> None:
    """Drafts and all."""
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)
    params = SamplingParams(temperature=0.9, seed=4, max_tokens=24, ignore_eos=True)
    requests = [Ask([5, 6, 7], params, 0), Ask([9], params, 0)]
    plain = Engine(replace(loaded.settings, speculative=None), Runner(loaded.model, VOCAB, 8).execute, lambda: 0.0)
    wanted = serve(plain, requests)
    known = {tuple(requests[i].prompt): [tokens] for (i, at), (tokens, _) in parted(wanted).items() if at == 0}
    device = Deferred(loaded.model, bad_step=bad_step)
    plans = Plans(AheadRunner(device, VOCAB, 8, loaded.memory.max_model_len).execute)
    settings = replace(loaded.settings, lookahead=LOOKAHEAD)
    assert serve(Engine(settings, plans, lambda: 0.0, Method(1, Oracle(known, 0.8))), requests) == wanted
    assert plans.kinds[bad_step].endswith("+")
