"""Beam search against transformers, against all outputs there are, and against itself among other requests.

Where no end of text comes, vLLM's beam search (ours) and transformers' are one. With ends they differ in which of them
count, and in the length that a score is divided by; so there all outputs of two tokens are scored by vLLM's rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import LLM, BeamSearchOutput, BeamSearchParams, SamplingParams
from albireo.api.driver import Driver
from albireo.api.load import Loaded, load
from albireo.api.requests.beam_search import beam_output, sampling_of
from albireo.api.requests.submission import Submission
from albireo.config import EngineConfig
from albireo.errors import InvalidParams, PromptTooLong
from albireo.execution.ahead import AheadRunner
from albireo.models import load_architecture
from e2e.serving import pressed
from e2e.test_ahead import Deferred
from tiny_models import make_checkpoint
from transformers_models import transformers

torch = pytest.importorskip("torch")

EOS, VOCAB = 2, 24
SMALL = {**load_architecture("llama").tiny, "vocab_size": VOCAB, "eos_token_id": EOS, "bos_token_id": 1}
PROMPTS = [np.random.default_rng(seed).integers(3, VOCAB, length).tolist() for seed, length in enumerate((1, 9, 21))]
Logits = Callable[[list[list[int]]], NDArray[np.float64]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("small"), SMALL, seed=3)


@pytest.fixture(scope="module")
def llm(directory: Path) -> LLM:
    return LLM(str(directory), dtype="float32", skip_tokenizer_init=True, block_size=8, num_threads=1)


@pytest.fixture(scope="module")
def oracle(directory: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.mark.parametrize("penalty", [1.0, 0.0, -1.5, 3.0])
def test_beams_are_those_of_transformers(penalty: float, llm: LLM, oracle: Any) -> None:
    num = 11
    for prompt, width in zip(PROMPTS, (2, 3, 6), strict=True):
        params = BeamSearchParams(width, num, ignore_eos=True, length_penalty=penalty)
        (found,) = llm.beam_search(prompt, params)
        wanted = oracle.generate(
            torch.tensor([prompt]), num_beams=width, num_return_sequences=width, max_new_tokens=num, do_sample=False,
            length_penalty=penalty, early_stopping="never", eos_token_id=None, pad_token_id=0,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        assert [each.tokens for each in found.sequences] == wanted.sequences.tolist()
        scores = [each.cum_logprob / num**penalty for each in found.sequences]
        np.testing.assert_allclose(scores, wanted.sequences_scores.numpy(), rtol=1e-4)
        assert {each.finish_reason for each in found.sequences} == {"length"}


@pytest.mark.parametrize("penalty", [1.0, 0.0, -2.0, 4.0])
def test_a_beam_that_is_wide_enough_finds_the_best_of_all_outputs(penalty: float, llm: LLM, oracle: Any) -> None:
    """All of two tokens at most, an end of text among them or not."""
    for prompt in PROMPTS:
        first = _logprobs(oracle, [prompt])[0]
        second = _logprobs(oracle, [[*prompt, token] for token in range(VOCAB)])
        scored = [(first[EOS] / len(prompt) ** penalty, [EOS])]
        for one, two in itertools.product(range(VOCAB), repeat=2):
            if one != EOS:
                length = len(prompt) + 1 + (two != EOS)
                scored.append(((first[one] + second[one][two]) / length**penalty, [one, two]))
        scored.sort(key=lambda each: -each[0])
        (found,) = llm.beam_search(prompt, BeamSearchParams(VOCAB, 2, length_penalty=penalty))
        got = [each.tokens[len(prompt) :] for each in found.sequences]
        assert got == [output for _, output in scored[:VOCAB]]
        assert [each.finish_reason for each in found.sequences] == ["stop" if EOS in ids else "length" for ids in got]
        for each, ids in zip(found.sequences, got, strict=True):
            assert [next(iter(entry)) for entry in each.logprobs] == ids
            assert sum(entry[i].logprob for entry, i in zip(each.logprobs, ids, strict=True)) == each.cum_logprob


def _logprobs(oracle: Any, sequences: list[list[int]]) -> NDArray[np.float64]:
    """Of what may follow each of some sequences of one length."""
    with torch.no_grad():
        logits = oracle(torch.tensor(sequences)).logits[:, -1].double()
    found: NDArray[np.float64] = torch.log_softmax(logits, -1).numpy()
    return found


# -- among others ------------------------------------------------------------------------------------------------------

ASKED = [BeamSearchParams(4, 19, length_penalty=0.5), BeamSearchParams(3, 12, ignore_eos=True)]
#: How searches are run beside others, and what shows that it was so.
WAYS: dict[str, dict[str, Any]] = {
    "beside others": {},
    "seats for few": {"max_num_seqs": 5},
    "chunks of 3": {"max_num_batched_tokens": 3, "enable_prefix_caching": False},
    "blocks of 32, two threads": {"block_size": 32, "num_threads": 2},
    "preempted": {"num_gpu_blocks_override": 17, "max_num_batched_tokens": 24},
    "preempted, no prefix cache": {"num_gpu_blocks_override": 17, "enable_prefix_caching": False},
    "drafts": {"speculative_config": {"method": "ngram"}},
}


def loaded(directory: Path, **config: Any) -> Loaded:
    defaults = {"dtype": "bfloat16", "num_threads": 1, "max_num_seqs": 16, "block_size": 8, "skip_tokenizer_init": True}
    defaults |= {"target_itl_ms": 0}
    return pressed(load(EngineConfig(model=str(directory), **{**defaults, **config})))


def served(made: Loaded, execute: Any = None, num_others: int = 6) -> tuple[list[BeamSearchOutput], Driver]:
    """The searches, each begun while the one before runs, and others before and behind them."""
    driver = Driver(made.settings, execute or made.execute, None, method=made.method)
    others = SamplingParams(temperature=0.7, max_tokens=25, seed=3, ignore_eos=True, detokenize=False)
    vocab = made.settings.vocab_size
    searches = []
    for i in range(num_others):
        prompt = np.random.default_rng(i).integers(3, vocab, 5 + 4 * i).tolist()
        driver.add(f"other {i}", Submission(None, prompt, others))
        if i % 3 == 0 and i // 3 < len(ASKED):
            searches.append(driver.add(f"search {i}", _search(i // 3)))
        driver.step()
    for i in range(len(searches), len(ASKED)):
        searches.append(driver.add(f"search {i}", _search(i)))
    while driver.has_work():
        driver.step()
        driver._engine.check_invariants()
    return [beam_output(search.output(), None) for search in searches], driver


def _search(number: int) -> Submission:
    return Submission(None, PROMPTS[1 + number], sampling_of(ASKED[number], logprobs=2, detokenize=False))


@pytest.fixture(scope="module")
def alone(directory: Path) -> list[BeamSearchOutput]:
    return served(loaded(directory), num_others=0)[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_search_gives_the_same_bits_alone_and_among_others(
    way: str, directory: Path, alone: list[BeamSearchOutput]
) -> None:
    made = loaded(directory, **WAYS[way])
    found, driver = served(made)
    assert found == alone  # every token and log-probability
    stats = driver.stats()
    assert "preempted" not in way or stats.num_preemptions > 0
    assert stats.kv_cache_usage == 0.0 and stats.num_requests_running == stats.num_requests_waiting == 0


def test_a_device_that_runs_ahead_finds_the_same(
    directory: Path, alone: list[BeamSearchOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("e2e.test_ahead.VOCAB", VOCAB)
    made = loaded(directory)
    runner = AheadRunner(_NoBeamsAhead(made.model), VOCAB, 8, made.settings.max_model_len)
    assert served(made, runner.execute)[0] == alone
    assert runner.num_found > 20


class _NoBeamsAhead(Deferred):
    """A row of a beam may be of another beam by the time that it is asked for."""

    def submit(self, inputs: Any, tasks: Any, rows: Any, sources: Any = None, *args: Any, **kwargs: Any) -> Any:
        assert sources is None or all(task.params.beam_search is None for task in tasks)
        return super().submit(inputs, tasks, rows, sources, *args, **kwargs)


@pytest.mark.parametrize("name", ["qwen3_5_text", "lfm2"])
def test_beams_of_models_that_keep_states(name: str, tmp_path: Path) -> None:
    """A state is copied when a beam forks, and computed again after a preemption."""
    config = {**load_architecture(name).tiny, "vocab_size": VOCAB, "eos_token_id": EOS}
    directory = make_checkpoint(tmp_path / name, config, seed=5)
    expected = served(loaded(directory), num_others=0)[0]
    found, driver = served(loaded(directory, num_gpu_blocks_override=17))
    assert found == expected and driver.stats().num_preemptions > 0


def test_beams_share_the_prompt_and_copy_a_block_at_most(directory: Path) -> None:
    """There is one of the prompt's 3 full blocks; once it is computed a step has one token of each beam."""
    made, plans = loaded(directory, enable_prefix_caching=False), []
    driver = Driver(made.settings, lambda plan: (plans.append(plan.num_tokens), made.execute(plan))[1], None)
    prompt = [3 + i % 20 for i in range(27)]
    driver.add("it", Submission(None, prompt, sampling_of(BeamSearchParams(4, 5, True), detokenize=False)))
    most = 0.0
    while driver.has_work():
        driver.step()
        most = max(most, driver.stats().kv_cache_usage)
    assert plans == [27, 4, 4, 4, 4]
    assert 3 < round(most * (made.settings.num_blocks - 1)) <= 3 + 4


def test_what_does_not_fit_is_refused_with_the_numbers(directory: Path) -> None:
    llm = LLM.from_loaded(loaded(directory, num_gpu_blocks_override=17, max_num_seqs=4))
    with pytest.raises(InvalidParams, match=r"beam_width=5 .*max_num_seqs=4"):
        llm.beam_search(PROMPTS[0], BeamSearchParams(5, 3))
    with pytest.raises(PromptTooLong, match=r"max_tokens=50 and beam_width=4 need 29 KV blocks of 8, the cache has 16"):
        llm.beam_search(PROMPTS[1], BeamSearchParams(4, 50))
    # as long as all beams can be together: the first of 9 tokens' blocks is theirs in common, 3 more are each one's
    (found,) = llm.beam_search(PROMPTS[1], BeamSearchParams(4, None, ignore_eos=True))
    assert {len(each.tokens) for each in found.sequences} == {4 * 8 + 1}
