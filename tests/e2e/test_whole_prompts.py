"""HRM-Text, whose prompts see themselves: transformers' logits behind whole prompts, the same bits in every way, and
what is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from albireo.api.llm import LLM
from albireo.beam_search_params import BeamSearchParams
from albireo.engine.request import check_request
from albireo.engine_process.messages import Ready
from albireo.engine_process.worker import _ready
from albireo.errors import ConfigError, InvalidParams, ModelError, UnsupportedFeature
from albireo.models import load_architecture, load_config
from albireo.params import SamplingParams
from e2e.promises import verdicts_of_a_directory
from e2e.serving import Answer, Ask, Server, assert_same_answers
from e2e.test_invariance import NO_CACHE, preempted
from tiny_models import make_checkpoint, parse_tiny

TINY: dict[str, Any] = {**load_architecture("hrm_text").tiny, "prefix_lm": True}


def asks() -> list[Ask]:
    """Within a block, of several, and of as many tokens as fill blocks; two that begin alike, and one asked again."""
    rng = np.random.default_rng(3)
    params = SamplingParams(temperature=0, max_tokens=14, ignore_eos=True, logprobs=0)
    prompts = [tuple(rng.integers(3, 120, length).tolist()) for length in (1, 5, 32, 47, 70)]
    return [Ask(p, params) for p in (*prompts, (*prompts[3][:40], 7, 8), prompts[3])]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), TINY, seed=5)


@pytest.fixture(scope="module")
def alone(directory: Path) -> list[Answer]:
    return Server.load(directory, **NO_CACHE).alone(asks())


def test_each_token_is_what_transformers_writes_behind_a_whole_prompt(directory: Path, alone: list[Answer]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    differs = False
    for ask, answer in zip(asks(), alone, strict=True):
        whole, num = [*ask.prompt, *answer.tokens[0]][:-1], len(ask.prompt)
        kinds = torch.tensor([[1] * num + [0] * (len(whole) - num)])
        with torch.no_grad():
            theirs = model(torch.tensor([whole]), token_type_ids=kinds).logits[0].numpy()
            causal = model(torch.tensor([whole])).logits[0].numpy()
        assert theirs[num - 1 :].argmax(axis=1).tolist() == answer.tokens[0]
        ours = np.stack([answer.rows[at] for at in sorted(answer.rows)])
        np.testing.assert_allclose(ours, theirs[num - 1 :], rtol=0, atol=2e-5 * np.abs(theirs).max())
        differs |= bool(np.abs(causal - theirs).max() > 0.1)
    assert differs, "a causal prompt would be told from one that sees itself"


@pytest.mark.parametrize(
    "way",
    [
        {"block_size": 8, "max_num_seqs": 1},
        {"block_size": 8, "num_threads": 2, "max_num_batched_tokens": 70},
        {"block_size": 32, "max_num_batched_tokens": 99},
        {"num_gpu_blocks_override": 8},
        {"block_size": 8, "speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
    ],
    ids=str,
)
def test_bits_depend_on_the_request_alone(way: dict[str, Any], directory: Path, alone: list[Answer]) -> None:
    """Steps that have room for the longest prompt alone; prompts again behind what was written of them, preempted."""
    answers, stats = Server.load(directory, **way).serve(asks(), stagger=1)
    assert_same_answers(answers, alone)
    assert "num_gpu_blocks_override" not in way or preempted(stats, answers)


def test_a_prompt_is_found_again_and_no_other_that_begins_like_it(directory: Path, alone: list[Answer]) -> None:
    some = [asks()[i] for i in (3, 5, 6, 3)]
    answers, _ = Server.load(directory, block_size=8).serve(some, waves=4)
    assert [each.num_cached_tokens for each in answers] == [0, 0, 40, 40]
    assert_same_answers(answers, [alone[i] for i in (3, 5, 3, 3)])


def test_siblings_and_beams_go_on_behind_one_prompt(directory: Path) -> None:
    prompt = list(asks()[3].prompt)
    with LLM(str(directory), skip_tokenizer_init=True) as llm:
        several = SamplingParams(n=3, temperature=1.0, seed=4, max_tokens=6, ignore_eos=True)
        found = [each.token_ids for each in llm.generate([prompt], several)[0].outputs]
        ones = [SamplingParams(temperature=1.0, seed=4 + i, max_tokens=6, ignore_eos=True) for i in range(3)]
        assert found == [llm.generate([prompt], each)[0].outputs[0].token_ids for each in ones]
    beams = []
    for blocks in (8, 16):
        with LLM(str(directory), skip_tokenizer_init=True, block_size=blocks) as llm:
            (output,) = llm.beam_search([{"prompt_token_ids": prompt}], BeamSearchParams(3, 6, True))
            beams.append([(each.tokens, each.cum_logprob) for each in output.sequences])
    assert beams[0] == beams[1] and len({tuple(tokens) for tokens, _ in beams[0]}) == 3


def test_a_directory_computes_the_same_and_is_verified(tmp_path: Path) -> None:
    assert set(verdicts_of_a_directory(tmp_path, TINY, asks()).values()) == {"passed"}


def test_what_needs_a_causal_prompt_is_refused(directory: Path, tmp_path: Path) -> None:
    with LLM(str(directory), skip_tokenizer_init=True, max_num_batched_tokens=64) as llm:
        with pytest.raises(UnsupportedFeature, match="prompt_logprobs=1: tokens of a prompt see those behind them"):
            llm.generate([[5, 6, 7]], SamplingParams(prompt_logprobs=1))
        with pytest.raises(InvalidParams, match="the prompt has 70 tokens, max_num_batched_tokens=64: tokens of a"):
            llm.generate([[5] * 70], SamplingParams())
    with pytest.raises(ConfigError, match=r"prefix_cache_dir=.*tokens of this model see those behind them"):
        LLM(str(directory), skip_tokenizer_init=True, prefix_cache_dir=str(tmp_path / "kept"))


def test_a_server_refuses_what_its_engine_would(directory: Path) -> None:
    """By what it is told when the engine is ready."""
    loaded = Server.load(directory, max_num_batched_tokens=64).loaded
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(_ready(loaded, {})), type=Ready).settings()
    assert loaded.settings.are_prompts_whole and told.are_prompts_whole
    with pytest.raises(InvalidParams, match="the prompt has 70 tokens, max_num_batched_tokens=64: tokens of a"):
        check_request([5] * 70, SamplingParams(), 0, told)


# -- config.json -------------------------------------------------------------------------------------------------------


def test_numbers_of_layers_as_transformers_writes_them(directory: Path, tmp_path: Path) -> None:
    """Of a stack, and of all times that one is used; the scale of embeddings as training began."""
    given = {key: value for key, value in TINY.items() if key != "num_layers_per_stack"}
    (tmp_path / "config.json").write_text(json.dumps(given | {"num_hidden_layers": 2, "embedding_scale": 2.0}))
    assert load_config(tmp_path) == load_config(directory)
    assert len(load_config(directory).kv_shapes) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers_per_stack": 3}, "num_hidden_layers=8 must be 12: a layer for each time that one is used"),
        ({"H_cycles": 0}, "H_cycles=0 must be a whole number from 1"),
        ({"H_cycles": 4000, "num_layers_per_stack": ...}, "H_cycles=4000 makes 64000 layers; at most"),
        ({"embedding_scale": -1.0}, "embedding_scale=-1.0 must be a number from"),
        ({"halting": True}, "'halting': True"),
    ],
)
def test_what_is_not_computed_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("hrm_text", **changes)
