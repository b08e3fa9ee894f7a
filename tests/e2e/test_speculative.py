"""Drafts change nothing: tokens, log-probabilities, ends and every bit of the logits are those without them.

Small random models through load and the engine, with guesses that are always right, never, sometimes, and those of
prompt lookup.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.llm import LLM
from albireo.engine.stats import EngineStats
from albireo.models import load_architecture
from albireo.outputs import RequestOutput
from albireo.params import SamplingParams
from albireo.speculative.pacing import Pacing
from albireo.speculative.proposer import Method
from compiler.ranks import wide_config
from e2e.serving import Answer, Ask, Server, assert_same_answers
from representatives import WITH_STATES
from tiny_models import make_checkpoint

NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1}
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "llama": ({**load_architecture("llama").tiny}, "float32"),
    "qwen2": (wide_config("qwen2", num_key_value_heads=8), "bfloat16"),
    # layers that keep a state, which has seen drafts that did not come true
    "qwen3_5_text": ({**load_architecture("qwen3_5_text").tiny}, "bfloat16"),
    "nemotron_h": ({**load_architecture("nemotron_h").tiny}, "bfloat16"),
}
SAMPLED = {"temperature": 0.9, "top_p": 0.95}


def tokens(length: int, seed: int, high: int = 90) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(3, high, length).tolist())


def ask(prompt: tuple[int, ...], **params: Any) -> Ask:
    return Ask(
        prompt, SamplingParams(**{"temperature": 0.0, "max_tokens": 24, "ignore_eos": True, "logprobs": 2, **params})
    )


def requests() -> list[Ask]:
    """Everything that a token can depend on; few different tokens, so that prompt lookup finds some."""
    common = tokens(35, 1)
    return [
        ask(tokens(3, 2)),
        ask((*common, *tokens(6, 3)), prompt_logprobs=0),
        ask((*common, *tokens(9, 4)), **SAMPLED, seed=1, allowed_token_ids=tuple(range(5, 9))),
        ask(tokens(17, 5), repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2),
        ask(tokens(12, 6, 8), **SAMPLED, seed=2, logit_bias={5: 9.0, 6: 9.5}, frequency_penalty=0.1),
        ask(tokens(20, 7), max_tokens=None, stop_token_ids=tuple(range(0, 90, 9)), min_tokens=5, ignore_eos=False),
        ask(tokens(11, 8), **SAMPLED, seed=3, n=2, allowed_token_ids=(4, 7)),
        ask(tokens(14, 9), bad_words_token_ids=((5,), (6, 7)), allowed_token_ids=(5, 6, 7)),
        ask(tokens(5, 10), temperature=2.5, seed=4, max_tokens=3),
    ]


class Oracle:
    """Guesses from what was answered without drafts, wrongly where it is told to."""

    def __init__(self, answers: dict[tuple[int, ...], list[list[int]]], how: str) -> None:
        self._answers, self._how = answers, how
        self._random = random.Random(7)

    def __call__(self, prompt: Sequence[int]) -> Any:
        return functools.partial(_Guess, self._answers[tuple(prompt)], self._how, self._random)()


class _Guess:
    def __init__(self, answers: list[list[int]], how: str, chance: random.Random) -> None:
        self._answers, self._how, self._random = answers, how, chance

    def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
        at = len(output_token_ids)
        answer = next(a for a in self._answers if a[:at] == list(output_token_ids))
        drafts = answer[at : at + num]
        wrong_at = {"right": num, "wrong": 0}.get(self._how, self._random.randrange(num + 2))
        if wrong_at < len(drafts):
            drafts[wrong_at] ^= 1
        return drafts, 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def make(name: str) -> Path:
        config, dtype = CONFIGS[name]
        return make_checkpoint(root / name, config, seed=5, dtype=dtype)

    return make


@pytest.fixture(scope="module")
def plain(checkpoint: Callable[[str], Path]) -> Callable[..., list[Answer]]:
    """The answers without drafts, each request alone."""

    @functools.cache
    def answers(name: str, **config: Any) -> list[Answer]:
        return Server.load(checkpoint(name), enable_prefix_caching=False, **config).alone(requests())

    return answers


SCENARIOS: dict[str, dict[str, Any]] = {
    "one thread": {},
    "no prefix cache, blocks of 8": {"enable_prefix_caching": False, "block_size": 8},
    "preempted": {"num_gpu_blocks_override": 14, "block_size": 8, "max_num_batched_tokens": 40},
    "two threads, short steps": {"num_threads": 2, "max_num_batched_tokens": 16},
    "by priority": {"scheduling_policy": "priority", "num_gpu_blocks_override": 14, "block_size": 8},
    "int8 cache": {"kv_cache_dtype": "int8"},
    "two ranks": {"tensor_parallel_size": 2, "num_threads": 2},
    "two ranks, preempted": {
        "tensor_parallel_size": 2,
        "num_threads": 2,
        "num_gpu_blocks_override": 14,
        "block_size": 8,
    },
}


#: One of the models can be cut.
CASES = [
    (name, each)
    for name in CONFIGS
    for each, config in SCENARIOS.items()
    if name == "qwen2" or ("ranks" not in each and (name not in WITH_STATES or "kv_cache_dtype" not in config))
]


@pytest.mark.parametrize(
    ("name", "scenario", "how"),
    [
        # each scenario meets as many ways to guess as it has models, each model every way
        pytest.param(name, scenario, how, marks=() if i % 4 == j else pytest.mark.thorough)
        for name, scenario in CASES
        for i in [list(CONFIGS).index(name) + list(SCENARIOS).index(scenario)]
        for j, how in enumerate(("right", "wrong", "sometimes", "ngram"))
    ],
)
def test_served_as_without_drafts(
    name: str, scenario: str, how: str, checkpoint: Callable[[str], Path], plain: Callable[..., list[Answer]]
) -> None:
    config = SCENARIOS[scenario]
    kept = {key: config[key] for key in ("kv_cache_dtype", "tensor_parallel_size", "num_threads") if key in config}
    wanted = plain(name, **kept)
    server = Server.load(checkpoint(name), **config, speculative_config=NGRAM)
    if how != "ngram":
        known = {ask.prompt: answer.tokens for ask, answer in zip(requests(), wanted, strict=True)}
        server.method = Method(1, Oracle(known, how))
    got, stats = server.serve(requests(), stagger=2)
    assert_same_answers(got, wanted)
    assert ("num_gpu_blocks_override" in config) == (stats.num_preemptions > 0)
    check_drafts(how, stats)


def check_drafts(how: str, stats: EngineStats) -> None:
    assert stats.num_draft_tokens > 0
    if how == "wrong":
        assert stats.num_accepted_tokens == 0
    elif how == "right":
        # Two continuations of one prompt begin alike, and it cannot know which goes on how.
        assert stats.num_accepted_tokens > 0.9 * stats.num_draft_tokens
    else:
        assert 0 < stats.num_accepted_tokens < stats.num_draft_tokens


GRAMMARS: list[dict[str, Any]] = [
    {"structured_outputs": {"regex": "(ab ){3,9}c"}},
    {"structured_outputs": {"json": {"type": "array", "items": {"enum": [True, False, None]}, "minItems": 6}}},
    {"structured_outputs": {"json": {"type": "array", "items": {"enum": ["yes", "no"]}, "minItems": 5}}, "n": 2},
    {"stop": ["e", "the"], "max_tokens": 40},
    {"stop": ["a"], "include_stop_str_in_output": True, "logprobs": 1, "max_tokens": 40},
    {"bad_words": ["the", "a"], "max_tokens": 30, "logprobs": 0},
    {"top_k": 5, "max_tokens": 50},
    {"max_tokens": 50, "min_p": 0.05, "n": 3},
]


def asked(llm: LLM, temperature: float) -> list[RequestOutput]:
    prompts = ["Once upon a time there was a cat. The cat was", "Tom had a ball. Tom had a ball. Tom", "[true, false,"]
    params = [SamplingParams(temperature=temperature, seed=i, **each) for i, each in enumerate(GRAMMARS)]
    outputs = llm.generate([p for p in prompts for _ in params], params * len(prompts), use_tqdm=False)
    return outputs


class Eager(Pacing):
    """Takes every draft, however long a step lasts on this machine."""

    def expected(self, num_rows: int) -> float:
        return 1.0

    def begin(self, num_rows: int) -> float:
        return 0.0

    def take(self, probability: float) -> bool:
        return True


@pytest.fixture(scope="module")
def bundled() -> Iterator[tuple[LLM, LLM]]:
    """The bundled model, without drafts and with some."""
    pytest.importorskip("llguidance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("albireo.engine.drafting.Pacing", Eager)
        yield (
            LLM(device="cpu", num_threads=1, max_model_len=256),
            LLM(device="cpu", num_threads=1, max_model_len=256, speculative_config=NGRAM),
        )


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_texts_ends_and_logprobs_of_the_bundled_model(bundled: tuple[LLM, LLM], temperature: float) -> None:
    """Through the front door: grammars, stop strings within drafts, words, several continuations."""
    wanted, got = (asked(llm, temperature) for llm in bundled)
    for a, b in zip(got, wanted, strict=True):
        assert a.outputs == b.outputs
    reasons = {(output.finish_reason, output.stop_reason) for each in wanted for output in each.outputs}
    assert {reason for reason, _ in reasons} == {"stop", "length"}
    assert {"e", "a"} <= {stop for _, stop in reasons}
    stats = bundled[1].stats()
    assert stats.num_accepted_tokens > 100


def test_an_engine_directory_guesses_too(tmp_path: Path, bundled: tuple[LLM, LLM]) -> None:
    """It needs no other build: how many rows a step may have is decided where it is run."""
    import albireo

    albireo.build(None, tmp_path / "engine")
    llm = LLM(str(tmp_path / "engine"), num_threads=1, max_model_len=256, speculative_config=NGRAM)
    params = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    prompt = "Tom had a ball. Tom had a ball. Tom"
    assert llm.generate(prompt, params)[0].outputs == bundled[0].generate(prompt, params)[0].outputs
    assert llm.stats().num_accepted_tokens > 0
