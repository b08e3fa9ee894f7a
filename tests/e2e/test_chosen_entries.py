"""GLM-5.3 and Qwen 4, whose positions have one key by several and are chosen together, beside layers that keep states:
the same bits in every way (DeepSeek V4's, too), what transformers computes step by step, files as published, and what
is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.params import SamplingParams
from e2e.promises import (
    assert_a_conversation_goes_on,
    assert_logits_of_transformers_with_its_caches,
    verdicts_of_a_directory,
)
from e2e.serving import Answer, Ask, Server, assert_same_answers
from e2e.test_invariance import NO_CACHE, preempted, requests
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

NAMES = ("glm5_next_text", "qwen4_exp_text")


@pytest.fixture(scope="module", params=(*NAMES, "deepseek_v4"))
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = load_architecture(request.param).tiny
    return make_checkpoint(tmp_path_factory.mktemp("model"), tiny, seed=5, dtype="bfloat16")


@pytest.fixture(scope="module")
def alone(directory: Path) -> list[Answer]:
    return Server.load(directory, max_num_batched_tokens=128, **NO_CACHE).alone(requests())


@pytest.mark.parametrize(
    "way",
    [
        {"block_size": 8, "max_num_batched_tokens": 1, "max_num_seqs": 1},
        {"block_size": 8, "num_threads": 2, "max_num_batched_tokens": 7},
        {"block_size": 32, "max_num_batched_tokens": 29},
        {"block_size": 16, "max_num_batched_tokens": 64},
        {"num_gpu_blocks_override": 8, "max_num_batched_tokens": 19},
    ],
    ids=str,
)
def test_bits_depend_on_the_request_alone(way: dict[str, Any], directory: Path, alone: list[Answer]) -> None:
    """Blocks of several entries, entries of several blocks; prompts in pieces that end within entries; preempted."""
    answers, stats = Server.load(directory, **way).serve(requests(), stagger=1)
    assert_same_answers(answers, alone)
    assert "num_gpu_blocks_override" not in way or preempted(stats, answers)


def test_a_conversation_goes_on_where_it_ended(directory: Path) -> None:
    assert_a_conversation_goes_on(directory, requests()[4].prompt[:44])


def test_guesses_that_are_wrong_leave_nothing(directory: Path) -> None:
    """Drafts by lookup write entries that the right tokens then write anew."""
    stem = requests()[4].prompt[:9]
    asks = [Ask((*stem, *stem, *stem), SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, logprobs=0))]
    method = {"method": "ngram", "num_speculative_tokens": 3}
    answers, _ = Server.load(directory, speculative_config=method).serve(asks)
    assert_same_answers(answers, Server.load(directory, **NO_CACHE).alone(asks))


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_computes_the_same_and_is_verified(name: str, tmp_path: Path) -> None:
    verdicts = verdicts_of_a_directory(tmp_path, load_architecture(name).tiny, requests()[:4])
    assert {verdicts[stage] for stage in ("graph", "weights", "tokens", "quality")} == {"passed"}


@pytest.mark.parametrize("name", NAMES)
def test_transformers_with_its_caches(name: str, tmp_path: Path) -> None:
    assert_logits_of_transformers_with_its_caches(make_checkpoint(tmp_path, load_architecture(name).tiny, seed=7))


@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_chooses_among_is_not_read(name: str) -> None:
    """A context of as many positions as are seen: no indexer, and a cache fewer."""
    tiny = load_architecture(name).tiny
    key = "index_topk" if "index_topk" in tiny else "indexer_budget"
    some, all_ = (parse_tiny(name, **{key: count}) for count in (124, 128))
    assert some.is_choosing and not all_.is_choosing
    assert len(some.kv_shapes) - len(all_.kv_shapes) == len(set(some.kv_every) - {1}) == 1
    ops = [[node.op for node in build_graph(each, 128).nodes].count("choose_keys") for each in (some, all_)]
    assert ops == [1, 0]
    assert some.state_bytes - all_.state_bytes == 4 * 3 * 12


def test_a_kv_cache_of_codes_is_refused(directory: Path) -> None:
    with pytest.raises(UnsupportedModel, match="a KV cache of int8: "):
        Server.load(directory, kv_cache_dtype="int8")


# -- GLM-5.3 -----------------------------------------------------------------------------------------------------------


def test_tensors_and_keys_as_published(tmp_path: Path) -> None:
    """A whole whose text part lies beside a tower, and a layer that guesses further tokens, which are left there."""
    tiny = dict(load_architecture("glm5_next_text").tiny)
    directory = make_checkpoint(tmp_path, tiny, seed=3)
    config, graph = load_config(directory), build_graph(load_config(directory), 64)
    with open_checkpoint(directory, graph) as checkpoint:
        wanted = {each: checkpoint.tensor(each).to_float32() for each in checkpoint.names}
    rule = {"kda_layers": [1, 4], "full_attn_layers": [2, 3], "head_dim": 12, "num_heads": 3}
    rule |= {"short_conv_kernel_size": 4, "gate_lower_bound": -4.0, "safe_gate": True}
    text = {key: value for key, value in tiny.items() if not key.startswith("linear_") and key != "layer_types"}
    text |= {"linear_attn_config": rule, "num_nextn_predict_layers": 1}
    whole = {"architectures": ["Glm5NextForConditionalGeneration"], "model_type": "glm5_next", "text_config": text}
    whole |= {"vision_config": {"model_type": "glm5_next_vision"}, "image_token_id": 100, "torch_dtype": "float32"}
    (directory / "config.json").write_text(json.dumps(whole))
    assert load_config(directory) == config
    renames = {".attn_hc.": ".hc_attn_", ".ffn_hc.": ".hc_ffn_", "model.": "model.language_model."}
    stored = {}
    for name, tensor in as_written(tiny, random_weights(tiny, 3)).items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        stored[name] = tensor
    assert "model.language_model.layers.2.hc_ffn_scale" in stored
    stored |= {"model.visual.patch_embed.proj.weight": np.ones((2, 2), np.float32)}
    stored |= {"model.language_model.layers.4.eh_proj.weight": np.ones((2, 2), np.float32)}
    write_safetensors(directory / "model.safetensors", stored, "float32")
    with open_checkpoint(directory, build_graph(load_config(directory), 64)) as checkpoint:
        assert set(checkpoint.names) - set(wanted) == {"model.layers.4.eh_proj.weight"}
        for each, numbers in wanted.items():
            assert np.array_equal(checkpoint.tensor(each).to_float32(), numbers), each


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ple_layer_ids": [1]}, "ple_layer_ids=.* is not supported; embeddings of several tokens together"),
        ({"indexer_kv_heads": 2}, "indexer_kv_heads=2 is not supported; one key for all heads"),
        ({"indexer_compress_ratio": 6}, "indexer_compress_ratio=6 is not supported; an entry is of a power of two"),
        ({"indexer_budget": 10}, "indexer_budget=10 must be a multiple of indexer_compress_ratio=4"),
        ({"indexer_head_dim": 2}, "indexer_head_dim=2 must be even, and at least the 4 channels that are rotated"),
        ({"indexer_n_heads": None}, "indexer_n_heads"),
        ({"output_gate_type": "relu"}, "output_gate_type='relu' is not supported"),
        ({"hc_count": 1}, "hc_count=1 must be a whole number from 2 to 16"),
        ({"norm_topk_prob": False}, "'norm_topk_prob': False"),
        ({"layer_types": ["linear_attention", "sliding_attention"] * 2}, "layer_types="),
    ],
)
def test_what_is_not_computed_of_qwen4_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("qwen4_exp_text", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index_kpool": 6}, "index_kpool=6 is not supported; an entry is of a power of two of positions"),
        ({"index_topk": 10}, "index_topk=10 must be a multiple of index_kpool=4"),
        ({"index_kpool_always_select_tail": False}, "index_kpool_always_select_tail=False is not supported"),
        ({"qk_rope_head_dim": 8}, "qk_rope_head_dim=8 must be a whole number from 0 to 0"),
        ({"q_lora_rank": None}, "q_lora_rank=.* must be given"),
        ({"indexer_types": ["full", "shared", "full", "full"]}, "indexer_types=.* must say full of the first layer"),
        ({"layer_types": ["linear_attention", "sliding_attention"] * 2}, "layer_types='sliding_attention'"),
        ({"linear_attn_config": {"head_dim": 13}}, "linear_head_dim=12 contradicts head_dim=13"),
        ({"linear_attn_config": {"num_layers": 13}}, "linear_attn_config: .*'num_layers': 13"),
        ({"hc_mult": 17}, "hc_mult=17 must be a whole number from 2 to 16"),
        ({"scoring_func": "softmax"}, "'scoring_func': 'softmax'"),
    ],
)
def test_what_is_not_computed_of_glm_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("glm5_next_text", **changes)


def test_a_bound_of_rates_may_be_missing() -> None:
    def of(**changes: Any) -> float:
        return parse_tiny("glm5_next_text", **changes).recurrent.most_decay

    assert (of(), of(linear_lower_bound=None), of(linear_lower_bound=...)) == (4.0, 0.0, 5.0)
    assert of(linear_lower_bound=None, linear_attn_config={"head_dim": 12}) == 5.0
    assert of(linear_lower_bound=None, linear_attn_config={"safe_gate": False}) == 0.0
    assert of(linear_attn_config={"gate_lower_bound": -3.0}) == 3.0
