"""Models that choose what they see, served: bits of a request are those of it alone, in whatever pieces its prompt is
computed; tensors under other names are the same model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.passes.shard import problems
from albireo.compiler.pipeline import compile_graph
from albireo.errors import ConfigError, ModelError, UnsupportedModel
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.settings.context import check_context, default_context, longest_context
from e2e.serving import Server, assert_same_answers
from e2e.test_invariance import NO_CACHE, requests
from tiny_choosing import CHOOSING
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

#: How their authors call tensors, where transformers calls them otherwise; or the other way round.
OTHER_NAMES = {
    "axk2": (("q_b_proj", "q_gate_proj"), ("W_down", "mlp.fc1"), ("W_up", "mlp.fc2")),
    "hy_v4": (
        *((".attn_hc.", ".hc_pre.hc_attn_layer.hc_"), (".ffn_hc.", ".hc_pre.hc_mlp_layer.hc_")),
        *((".hc_head.hc_", ".hc_pre.hc_head.hc_head_"), (".sinks", ".learnable_sink_param")),
        (".self_attn.gate_proj.", ".self_attn.linear_gate."),
    ),
}


@pytest.mark.parametrize("name", sorted(CHOOSING))
def test_bits_are_those_of_a_request_alone(name: str, tmp_path: Path) -> None:
    """Prompts are longer than what is chosen; pieces of seven tokens end within blocks, and within what is chosen."""
    directory = make_checkpoint(tmp_path, load_architecture(name).tiny, seed=2)
    wanted = Server.load(directory, max_num_batched_tokens=96, **NO_CACHE).alone(requests())
    for config in ({"max_num_batched_tokens": 7, "num_threads": 2}, {"max_num_batched_tokens": 64}):
        answers, _ = Server.load(directory, **config).serve(requests())
        assert_same_answers(answers, wanted)


@pytest.mark.parametrize("name", sorted(OTHER_NAMES))
def test_tensors_under_other_names(name: str, tmp_path: Path) -> None:
    tiny = load_architecture(name).tiny
    directory = make_checkpoint(tmp_path, tiny, seed=3)
    graph = build_graph(load_config(directory), 64)
    with open_checkpoint(directory, graph) as checkpoint:
        wanted = {each: checkpoint.tensor(each).to_float32() for each in checkpoint.names}
    renamed = {}
    for each, array in as_written(tiny, random_weights(tiny, 3)).items():
        for ours, theirs in OTHER_NAMES[name]:
            each = each.replace(ours, theirs)
        renamed[each] = array
    write_safetensors(directory / "model.safetensors", renamed, "float32")
    with open_checkpoint(directory, graph) as checkpoint:
        assert set(checkpoint.names) == set(wanted)
        for each, numbers in wanted.items():
            assert np.array_equal(checkpoint.tensor(each).to_float32(), numbers), each


def test_gpus_have_kernels_for_whatever_chooses() -> None:
    options: dict[str, Any] = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}
    for name in ("deepseek_v4", "glm5_next_text", "qwen4_exp_text"):
        assert compile_graph(build_graph(parse_tiny(name), 64), CudaCatalog(), **options).calls


def test_ranks_do_not_share_what_each_head_chooses() -> None:
    found = problems(build_graph(parse_tiny("minimax_m3_vl_text"), 64), 2)
    assert any("each of its KV heads chooses which positions it sees" in each for each in found)
    assert not any("chooses" in each for each in problems(build_graph(parse_tiny("hy_v4"), 64), 2))


def test_keys_by_which_blocks_are_chosen_take_no_room_for_values() -> None:
    """Two layers of three choose: of a position 2 * 2 heads of 16 numbers a layer, and 12, kept as 16, of one key."""
    graph = build_graph(parse_tiny("minimax_m3_vl_text"), 64)
    options: dict[str, Any] = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}
    program = compile_graph(graph, CpuCatalog(isa_levels()), **options)
    assert program.kv.position_bytes == 4 * (3 * 2 * 2 * 16 + 2 * 16)
    assert program.kv.keys_alone == (3, 4)


MINIMAX: dict[str, Any] = {
    key: value
    for key, value in load_architecture("minimax_m3_vl_text").tiny.items()
    if not key.startswith("index_") and not key.endswith(("_types", "_parameters", "architectures"))
}
#: As its authors say it.
PUBLISHED = {
    **{"hidden_act": "swigluoai", "moe_layer_freq": [0, 1, 1], "rope_theta": 5000000, "rotary_dim": 8},
    "sparse_attention_config": {
        **{"sparse_num_index_heads": 2, "sparse_index_dim": 12, "sparse_block_size": 8, "sparse_topk_blocks": 3},
        **{"sparse_local_block": 1, "sparse_attention_freq": [0, 1, 1]},
        **{"sparse_disable_index_value": [0, 1, 1], "use_sparse_attention": True, "sparse_score_type": "max"},
        "sparse_init_block": 0,
    },
    **{"use_gemma_norm": True, "use_qk_norm": True, "qk_norm_type": "per_head", "scoring_func": "sigmoid"},
    **{"use_routing_bias": True, "n_shared_experts": 1, "partial_rotary_factor": 0.5, "num_mtp_modules": 7},
}


def test_minimax_m3_as_published(tmp_path: Path) -> None:
    """The text part of a whole, whose keys and tensors lie otherwise; what reads pictures is left where it lies."""
    tiny = load_architecture("minimax_m3_vl_text").tiny
    directory = make_checkpoint(tmp_path, tiny, seed=4)
    alone, tensors = load_config(directory), as_written(tiny, random_weights(tiny, 4))
    whole = {"architectures": ["MiniMaxM3SparseForConditionalGeneration"], "model_type": "minimax_m3_vl"}
    whole |= {"image_token_index": 5, "video_token_index": 6, "vision_config": {"hidden_size": 8}}
    whole |= {"torch_dtype": "float32", "text_config": MINIMAX | PUBLISHED}
    (directory / "config.json").write_text(json.dumps(whole))
    renamed = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    renamed["vision_tower.vision_model.pre_layrnorm.weight"] = np.ones(2, np.float32)
    write_safetensors(directory / "model.safetensors", renamed, "float32")
    config = load_config(directory)
    assert config == alone
    with open_checkpoint(directory, build_graph(config, 64)) as checkpoint:
        assert checkpoint.names == tuple(sorted(tensors))


def test_dots3_as_published(tmp_path: Path) -> None:
    """Keys of text beside those of towers, words of older files; towers are left where they lie."""
    tiny = load_architecture("dots3_note_text").tiny
    directory = make_checkpoint(tmp_path, tiny, seed=4)
    alone, tensors = load_config(directory), as_written(tiny, random_weights(tiny, 4))
    left_out = ("layer_types", "sliding_window", "rope_parameters", "mlp_layer_types", "model_type", "torch_dtype")
    whole = {key: value for key, value in tiny.items() if key not in left_out}
    whole["moe_shared_expert_intermediate_size"] = whole.pop("shared_experts_intermediate_size")
    whole |= {"model_type": "dots3_note", "torch_dtype": "float32", "use_dsa": True, "sliding_window_size": 13}
    whole |= {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "moe_layer_freq": [0, 1, 1]}
    whole |= {"rope_theta": 80000000.0, "swa_rope_theta": 50000.0, "swa_qk_rope_head_dim": 8}
    whole |= {"image_token_id": 5, "video_token_id": 6, "audio_token_id": 7, "vision_config": {}, "audio_config": {}}
    (directory / "config.json").write_text(json.dumps(whole))
    stored = {**tensors, "vision_encoder.norm.weight": np.ones(2, np.float32)}
    write_safetensors(directory / "model.safetensors", stored, "float32")
    config = load_config(directory)
    assert config == alone
    with open_checkpoint(directory, build_graph(config, 64)) as checkpoint:
        assert {name for name in checkpoint.names if name.startswith("model.")} >= set(random_weights(tiny, 4)) - {
            "lm_head.weight"
        }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"swa_num_key_value_heads": 1}, "num_key_value_heads=1 must be num_attention_heads=2"),
        ({"swa_qk_rope_head_dim": 4}, "qk_rope_head_dim=4 must be what head_dim has beside qk_nope_head_dim=12"),
        (
            {"per_layer_config": {"0": {"head_dim": 20}}},
            "per_layer_config=.* the same for each layer",
        ),
        ({"layer_types": ["sliding_attention"]}, "layer_types=.* for each of 3 layers"),
        ({"moe_layer_freq": 2, "mlp_layer_types": None}, "moe_layer_freq=2 is not supported"),
    ],
)
def test_dots3_that_is_not_computed_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("dots3_note_text", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index_n_heads": 1}, "index_n_heads=1 is not supported; one of each of 2 KV heads"),
        ({"index_local_blocks": 0}, "index_local_blocks=0 is not supported; a row sees its own block"),
        ({"index_local_blocks": 4}, "index_local_blocks=4 must be a whole number from 0 to 3"),
        ({"layer_types": ["full_attention"]}, "layer_types=.* is not supported"),
        ({"swiglu_limit": 5.0}, "'swiglu_limit': 5.0"),
        (
            {"sparse_attention_config": {"sparse_disable_index_value": [0, 0, 1]}},
            "sparse_disable_index_value=.* what chooses has no values",
        ),
        ({"sparse_attention_config": {"sparse_init_block": 1}}, "'sparse_init_block': 1"),
        ({"sparse_attention_config": {"sparse_score_type": "lse"}}, "'sparse_score_type': 'lse'"),
        ({"sparse_attention_config": {"sparse_mode": 2}}, "'sparse_mode': 2"),
    ],
)
def test_blocks_that_are_not_computed_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("minimax_m3_vl_text", **changes)


@pytest.mark.parametrize("head_dim", [2, 6])
def test_heads_that_choose_are_as_wide_as_what_is_rotated(head_dim: int) -> None:
    with pytest.raises(UnsupportedModel, match=f"index_head_dim={head_dim} is not supported; at least the 8 channels"):
        build_graph(parse_tiny("minimax_m3_vl_text", index_head_dim=head_dim), 64)
    assert build_graph(parse_tiny("minimax_m3_vl_text", index_head_dim=8), 64).nodes


@pytest.mark.parametrize(("count", "longest"), [(12, 512), (127, 512), (128, 128), (200, 200), (600, 512)])
def test_no_sequence_is_longer_than_what_is_seen_where_nothing_is_chosen(count: int, longest: int) -> None:
    """Of 128 positions, which yarn stretches to 512."""
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    config = parse_tiny("axk2", index_topk=count, rope_scaling=rope)
    assert default_context(config) == longest_context(config) == longest
    with pytest.raises(ConfigError, match=f"max_model_len={longest + 1} exceeds"):
        check_context(config, longest + 1)
