"""Drafts on the executor for GPUs, its kernels interpreted: the tokens of the CPU's kernels without drafts.

Guesses know what comes, and are wrong now and then; all are taken. Steps are padded and replayed, or launched.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, SamplingParams
from albireo.api import load
from albireo.api.machine import swapping
from albireo.backends.cuda.recordings import Recordings
from albireo.engine.engine import Engine
from albireo.models import load_architecture
from albireo.speculative.pacing import Pacing
from albireo.speculative.proposer import Method
from backends.cuda.test_end_to_end import MODELS, StandIn, check_logprobs, llm, tokens
from backends.cuda.test_model import Recorder
from tiny_models import make_checkpoint

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1}


class Always(Pacing):
    """Takes all drafts, and waits for them."""

    def begin(self, num_rows: int) -> float:
        return 0.0

    def take(self, probability: float) -> bool:
        return True

    def pays(self, num_gaps: int) -> bool:
        return True


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {**load_architecture("qwen2").tiny, "num_hidden_layers": 1}
    return make_checkpoint(tmp_path_factory.mktemp("model"), config, seed=5)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albireo.engine.drafting.Pacing", Always)


class Knowing:
    """Guesses what was answered to a prompt, each draft with a chance to be wrong."""

    def __init__(self, answers: dict[tuple[int, ...], list[list[int]]], wrong: float) -> None:
        self._answers, self._wrong, self._chance = answers, wrong, random.Random(1)

    def __call__(self, prompt: Sequence[int]) -> Any:
        answers, chance, wrong = self._answers[tuple(prompt)], self._chance, self._wrong

        class Guess:
            def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
                output = list(output_token_ids)
                answer = next(each for each in answers if each[: len(output)] == output)
                drafts = answer[len(output) : len(output) + num]
                return [draft ^ 1 if chance.random() < wrong else draft for draft in drafts], 0

        return Guess()


def on_gpu(directory: Path, monkeypatch: pytest.MonkeyPatch, answers: Any, wrong: float, **config: Any) -> LLM:
    """With drafts. answers: to guess from, see tokens()."""
    known = {tuple(prompt): answer for prompt, answer in answers}
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    monkeypatch.setattr("albireo.engine.drafting.method_of", lambda config: Method(1, Knowing(known, wrong)))
    return llm(directory, device="cuda", speculative_config=NGRAM, **config)


def recording() -> Recorder:
    """Make the model loaded last pad its steps, and replay them."""
    recorder = Recorder()
    MODELS[-1]._recordings = Recordings(MODELS[-1]._buckets, recorder)
    return recorder


@pytest.mark.parametrize("is_eager", [False, True], ids=["recorded", "eager"])
def test_tokens_are_those_of_the_cpu(directory: Path, monkeypatch: pytest.MonkeyPatch, is_eager: bool) -> None:
    """Greedy, drawn, penalised, biased, with words and ends that may not come; two continuations of one."""
    common: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True}
    ends = {"stop_token_ids": list(range(0, 60, 3)), "min_tokens": 4, "max_tokens": 5}
    kinds = [
        SamplingParams(temperature=0, **common),
        SamplingParams(temperature=0.8, top_p=0.9, seed=3, n=2, **common),
        SamplingParams(temperature=0, repetition_penalty=1.4, frequency_penalty=0.3, **common),
        SamplingParams(temperature=1.0, top_k=70, presence_penalty=0.6, logit_bias={9: 2.0}, seed=4, **common),
        SamplingParams(temperature=0, bad_words_token_ids=((5,), (6, 7)), allowed_token_ids=[5, 6, 7, 12], **ends),
    ][: 2 if is_eager else None]
    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, 60, 3 + i).tolist() for i in range(len(kinds))]
    wanted = tokens(llm(directory, device="cpu"), prompts, kinds)
    gpu = on_gpu(directory, monkeypatch, zip(prompts, wanted, strict=True), 0.2)
    recorder = None if is_eager else recording()
    assert tokens(gpu, prompts, kinds) == wanted
    stats = gpu.stats()
    assert 0 < stats.num_accepted_tokens < stats.num_draft_tokens
    if recorder is not None:
        recorded = MODELS[-1]._recordings._recorded
        assert max(bucket.size for bucket in recorded if bucket.tokens is None) > 3, "more rows than sequences"
        assert recorder.num_replayed > 0


def test_a_loop_is_foreseen_by_prompt_lookup(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    params = [SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, allowed_token_ids=[5, 6])]
    gpu = llm(directory, device="cuda", speculative_config=NGRAM)
    got = tokens(gpu, [[5, 6, 5, 6, 5]], params)
    monkeypatch.undo()
    assert got == tokens(llm(directory, device="cpu"), [[5, 6, 5, 6, 5]], params)
    stats = gpu.stats()
    assert stats.num_steps < 16 and stats.num_accepted_tokens > 8


def test_log_probabilities_of_drafts_that_came_true(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = [
        SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=2, prompt_logprobs=0),
        SamplingParams(temperature=0.9, top_p=0.95, seed=2, max_tokens=6, ignore_eos=True, logprobs=0),
    ]
    prompts = [[5, 6, 7, 8], [9]]
    given: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
    wanted = llm(directory, device="cpu").generate(given, params, use_tqdm=False)
    answers = [[list(each.token_ids) for each in output.outputs] for output in wanted]
    gpu = on_gpu(directory, monkeypatch, zip(prompts, answers, strict=True), 0.3)
    for ours, theirs in zip(gpu.generate(given, params, use_tqdm=False), wanted, strict=True):
        check_logprobs(ours.prompt_logprobs, theirs.prompt_logprobs)
        assert ours.outputs[0].token_ids == theirs.outputs[0].token_ids
        check_logprobs(ours.outputs[0].logprobs, theirs.outputs[0].logprobs)
    stats = gpu.stats()
    assert 0 < stats.num_accepted_tokens < stats.num_draft_tokens
    assert not any("logits" in names for names in MODELS[-1]._results._sets), "all of it was found there"


def test_swapped_blocks_come_back_as_they_were(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks for two that want three each: who has to go does so between steps with drafts."""
    prompts = np.random.default_rng(4).integers(3, 60, (2, 9)).tolist()
    greedy = SamplingParams(temperature=0, max_tokens=11, ignore_eos=True)
    params = [greedy, greedy.clone(temperature=0.9, seed=5)]
    wanted = tokens(llm(directory, device="cpu"), prompts, params)
    monkeypatch.setattr(swapping, "LINK_BYTES_PER_S", 1e30)  # the model is so small that it would not be worth it
    config: dict[str, Any] = {"num_gpu_blocks_override": 5, "enable_prefix_caching": False, "swap_space": 1e-4}
    gpu = on_gpu(directory, monkeypatch, zip(prompts, wanted, strict=True), 0.1, **config)
    assert tokens(gpu, prompts, params) == wanted
    stats = gpu.stats()
    assert stats.num_swap_outs > 0 and stats.num_accepted_tokens > 0


class Turns:
    """A grammar: a token of 5 to 9, then one of 20 to 24, and so on. It is asked about nothing but that."""

    eos_token_ids: tuple[int, ...] = (1,)

    def matcher(self) -> Turns:
        return self

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        for place, token in enumerate(output_token_ids):
            assert token in self._allowed(place), "it was asked about what it does not allow"
        mask = bytearray(16)
        for token in self._allowed(len(output_token_ids)):
            mask[token >> 3] |= 1 << (token & 7)
        return bytes(mask)

    def ahead(self, output_token_ids: Sequence[int], draft_token_ids: Sequence[int]) -> list[bytes]:
        masks: list[bytes] = []
        for num, draft in enumerate(draft_token_ids, 1):
            if draft not in self._allowed(len(output_token_ids) + num - 1):
                break
            masks.append(self.allowed([*output_token_ids, *draft_token_ids[:num]]))
        return masks

    def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
        return []

    def _allowed(self, place: int) -> range:
        return range(20, 25) if place % 2 else range(5, 10)


def test_a_grammar_that_refuses_drafts(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn on the device, beside one without; drafts that the grammar does not allow do no harm."""
    prompts = [[5, 6, 7], [8, 9]]
    drawn = SamplingParams(temperature=0.9, seed=3, max_tokens=8, ignore_eos=True)

    def served(engine: LLM) -> list[list[list[int]]]:
        assert engine.loaded is not None
        made = Engine(engine.loaded.settings, engine.loaded.execute, lambda: 0.0)
        structured = drawn.clone(structured_outputs={"regex": "unread"})
        made.add_request("0", prompts[0], structured, constraint=Turns())
        made.add_request("1", prompts[1], drawn)
        found: list[list[list[int]]] = [[[]], [[]]]
        while made.has_work():
            for update in made.step():
                found[int(update.request_id)][0] += update.token_ids
        stats.append(made.stats())
        return found

    stats: list[Any] = []
    wanted = served(llm(directory, device="cpu"))
    assert all(token in Turns()._allowed(place) for place, token in enumerate(wanted[0][0]))
    got = served(on_gpu(directory, monkeypatch, zip(prompts, wanted, strict=True), 0.25))
    assert got == wanted
    assert 0 < stats[-1].num_accepted_tokens < stats[-1].num_draft_tokens
    assert not any("logits" in names for names in MODELS[-1]._results._sets), "all of it was drawn there"
