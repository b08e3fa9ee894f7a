"""config.json of models whose layers keep a state: which layers do, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import load_architecture
from albireo.models.settings.mamba1_settings import Mamba1Settings
from albireo.models.settings.recurrent_settings import GatedDeltaSettings
from tiny_models import parse_tiny

_KIMI = load_architecture("kimi_linear").tiny["linear_attn_config"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear_num_value_heads": 5}, "linear_num_value_heads=5 must be a multiple of linear_num_key_heads=2"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "has 2 entries for num_hidden_layers=4"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types='sliding_attention' is not supported"),
        ({"linear_conv_kernel_dim": 9}, "linear_conv_kernel_dim=9"),
        ({"attn_output_gate": False}, "'attn_output_gate': False"),
        ({"mamba_ssm_dtype": "bfloat16"}, "'mamba_ssm_dtype': 'bfloat16'"),
    ],
)
def test_states_that_are_not_computed_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny("qwen3_5_text", **changes)


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("nemotron_h", {"hybrid_override_pattern": "MEME*x"}, "hybrid_override_pattern='x' is not supported"),
        ("nemotron_h", {"hybrid_override_pattern": "ME*"}, "num_hidden_layers=6 is not the 3 layers"),
        ("nemotron_h", {"hybrid_override_pattern": ...}, "layers_block_type=None must say what each layer is"),
        ("nemotron_h", {"layers_block_type": ["mamba"] * 5 + ["attention"]}, "contradicts layers_block_type"),
        ("nemotron_h", {"mamba_num_heads": 5}, "mamba_num_heads=5 must be a multiple of n_groups=2"),
        ("nemotron_h", {"time_step_limit": [0.5, 0.1]}, "time_step_limit=.* the smaller one first"),
        ("nemotron_h", {"mamba_hidden_act": "gelu"}, "'mamba_hidden_act': 'gelu'"),
        ("nemotron_h", {"mamba_proj_bias": True}, "'mamba_proj_bias': True"),
        (
            "zamba2",
            {"layers_block_type": ["mamba"] * 4 + ["attention"]},
            "layers_block_type='attention' is not supported",
        ),
        ("zamba2", {"layers_block_type": ["mamba"] * 4}, "must be one word for each of num_hidden_layers=5"),
        ("zamba2", {"hybrid_layer_ids": [1, 2]}, "hybrid_layer_ids=.* contradicts layers_block_type"),
        ("zamba2", {"attention_head_dim": 10}, "attention_head_dim=10 is not supported; heads must make 80"),
        ("zamba2", {"num_key_value_heads": 2}, "with use_shared_attention_adapter it must be num_attention_heads"),
        ("zamba2", {"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ("zamba2", {"add_bias_linear": True}, "add_bias_linear=True is not supported; it must be false"),
        ("zamba2", {"use_long_context": True}, "'use_long_context': True"),
        ("olmo_hybrid", {"linear_num_value_heads": 8}, "linear_num_value_heads=8 is not supported; it must be linear"),
        ("bailing_hybrid", {"kda_lower_bound": 0.0}, "kda_lower_bound=0.0 must be a number from -1000"),
        ("bailing_hybrid", {"layer_types": ["mamba"] * 4}, "layer_types='mamba' is not supported; supported: linear_"),
        ("bailing_hybrid", {"score_function": "softmax"}, "'score_function': 'softmax'"),
        ("bailing_hybrid", {"use_qkv_bias": True}, "'use_qkv_bias': True"),
        ("olmo_hybrid", {"rope_parameters": None}, "rope_parameters=None is not supported; say a rope_theta"),
        ("bamba", {"attn_layer_indices": [3]}, "attn_layer_indices=.* must be a list of layers, from 0 to 2"),
        ("bamba", {"partial_rotary_factor": 0.25}, "partial_rotary_factor=0.25 is not supported; it must be 0.5"),
        ("bamba", {"attn_rotary_emb": 12}, "attn_rotary_emb=12 is not supported; it must be 6"),
        ("bamba", {"layer_types": ["mamba"] * 3}, "layer_types=.* contradicts attn_layer_indices"),
        ("mamba2", {"expand": 3}, "head_dim=20 must make expand .* hidden_size = 120 with num_heads=4"),
        ("mamba2", {"rms_norm": False}, "'rms_norm': False"),
        ("mamba2", {"intermediate_size": 160}, "intermediate_size=160 is not supported; it must be .* = 80"),
        ("mamba2", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("mamba", {"rms_norm": False}, "'rms_norm': False"),
        ("mamba", {"state_size": 257}, "state_size=257"),
        ("mamba", {"time_step_rank": "all"}, "time_step_rank='all'"),
        ("mamba", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("falcon_mamba", {"mixer_rms_eps": -1.0}, "mixer_rms_eps=-1.0"),
        ("kimi_linear", {"linear_attn_config": _KIMI | {"kda_layers": [1, 3, 5]}}, "must name each of 4 layers once"),
        ("kimi_linear", {"linear_attn_config": _KIMI | {"gate_lower_bound": -5.0}}, "'gate_lower_bound': -5.0"),
        ("kimi_linear", {"linear_num_heads": 4}, "linear_num_heads=4 contradicts num_heads=3 of linear_attn_config"),
        ("kimi_linear", {"mla_use_nope": False}, "'mla_use_nope': False"),
        ("kimi_linear", {"mla_use_output_gate": True}, "'mla_use_output_gate': True"),
        ("jamba", {"attn_layer_offset": 3}, "attn_layer_offset=3"),
        ("jamba", {"expert_layer_offset": 2}, "expert_layer_offset=2"),
        ("jamba", {"num_experts_per_tok": 7}, "num_experts_per_tok=7 is more than num_experts=6"),
        ("jamba", {"layer_types": ["mamba"] * 3}, "layer_types=.* contradicts attn_layer_period"),
        ("jamba", {"mamba_inner_layernorms": False}, "'mamba_inner_layernorms': False"),
        ("jamba", {"sliding_window": 64}, "'sliding_window': 64"),
        ("falcon_h1", {"ssm_multipliers": [1.0] * 4}, "ssm_multipliers=.* must be 5 numbers"),
        ("falcon_h1", {"mlp_multipliers": [1.0, 0.0]}, "mlp_multipliers=.* must be a list of numbers from 1e-06"),
        ("falcon_h1", {"mamba_proj_bias": True}, "mamba_proj_bias=True is not supported; multipliers of linears with"),
        ("falcon_h1", {"projectors_bias": True}, "'projectors_bias': True"),
        ("falcon_h1", {"attention_bias": True}, "'attention_bias': True"),
        ("falcon_h1", {"mamba_use_mlp": False}, "'mamba_use_mlp': False"),
        ("falcon_h1", {"mamba_d_ssm": 50}, "mamba_d_head=12 must make mamba_d_ssm = 50 with mamba_n_heads=4"),
        ("falcon_h1", {"layer_types": ["hybrid", "mamba"]}, "layer_types='mamba' is not supported"),
        ("minimax", {"layer_types": ["mamba"] * 4}, "layer_types='mamba' is not supported"),
        ("minimax", {"attn_type_list": [0, 1]}, "attn_type_list=.* must be a list of 0 and 1, one for each of 4"),
        ("minimax", {"attn_type_list": [[0], 1, 0, 1]}, "attn_type_list=.* must be a list of 0 and 1"),
        ("minimax", {"attn_type_list": [1, 0, 1, 0]}, "attn_type_list=.* contradicts layer_types; keep one"),
        ("minimax", {"mlp_alpha_factor": 0.0}, "mlp_alpha_factor=0.0 must be a number from 0.001"),
        ("minimax", {"sliding_window": 64}, "'sliding_window': 64"),
        ("minimax_text_01", {"postnorm": False}, "'postnorm': False"),
        ("minimax_m1", {"shared_intermediate_size": 28}, "'shared_intermediate_size': 28"),
        ("minimax_m1", {"rotary_dim": 14}, "rotary_dim=14 must be a whole number from 2 to 12"),
        ("granitemoehybrid", {"layer_types": ["mamba"] * 2}, "has 2 entries for num_hidden_layers=3"),
        ("granitemoehybrid", {"mamba_d_head": 16}, "mamba_d_head=16 must make mamba_expand"),
        ("granitemoehybrid", {"position_embedding_type": "alibi"}, "position_embedding_type='alibi' is not supported"),
        ("granitemoehybrid", {"num_experts_per_tok": 7}, "num_experts_per_tok=7 is more than num_local_experts=6"),
    ],
)
def test_layers_of_mamba_that_are_not_computed_are_refused(
    model_type: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny(model_type, **changes)


def test_layers_of_mamba_are_read_in_either_spelling() -> None:
    words = ["linear_attention", "moe", "linear_attention", "moe", "full_attention", "mlp"]
    infinity = [0.0, {"__float__": "Infinity"}]
    said = {"hybrid_override_pattern": ..., "num_hidden_layers": ..., "time_step_limit": infinity}
    assert parse_tiny("nemotron_h", layers_block_type=words, **said) == parse_tiny("nemotron_h")
    assert parse_tiny("nemotron_h").cached_layers == (4,)
    # null is as many as there are query heads, as of all decoders
    assert parse_tiny("nemotron_h", num_key_value_heads=None).num_kv_heads == parse_tiny("nemotron_h").num_heads
    dense = parse_tiny("nemotron_h", hybrid_override_pattern="*-*-*-")
    assert dense.recurrent is None and dense.experts is None and dense.cached_layers == (0, 2, 4)
    attending = parse_tiny("granitemoehybrid", layer_types=["attention"] * 3, num_local_experts=0)
    assert attending.recurrent is None and attending.experts is None and attending.cached_layers == (0, 1, 2)
    assert not any(attending.rotates) and attending.intermediate_size == 36


def test_a_model_may_have_states_alone() -> None:
    for config in (
        parse_tiny("mamba2", intermediate_size=80, norm_before_gate=True),
        parse_tiny("mamba", intermediate_size=80),
        parse_tiny("falcon_mamba"),
        parse_tiny("jamba", attn_layer_period=4, attn_layer_offset=3),
        parse_tiny("bamba", attn_layer_indices=None),
        parse_tiny("granitemoehybrid", layer_types=["mamba"] * 3),
        parse_tiny("nemotron_h", hybrid_override_pattern="MEM-ME"),
        parse_tiny("qwen3_5_text", layer_types=["linear_attention"] * 4),
        parse_tiny("lfm2", full_attn_idxs=[]),
    ):
        assert config.cached_layers == () and config.kv_shapes == () and config.recurrent is not None


def test_sizes_and_rotations_of_olmo_hybrid_where_nothing_is_said() -> None:
    left_out = {f"linear_{key}": ... for key in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")}
    config = parse_tiny("olmo_hybrid", layer_types=..., num_hidden_layers=3, **left_out)
    r = config.recurrent
    assert isinstance(r, GatedDeltaSettings) and (r.k_heads, r.v_heads, r.k_dim, r.v_dim) == (4, 4, 9, 18)
    assert config.cached_layers == (2,) and not any(config.rotates)
    assert not any(parse_tiny("olmo_hybrid", rope_parameters=..., rope_theta=None).rotates)
    for said in ({"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}, {}):
        assert all(parse_tiny("olmo_hybrid", **{"rope_parameters": ..., **said}).rotates)


def test_which_layers_of_jamba_are_what() -> None:
    config = parse_tiny("jamba")
    assert config.cached_layers == (1,) and config.experts is not None and not any(config.rotates)
    assert config.experts.layers == (True, False, True) and not config.experts.renormalize
    left_out = {f"{part}_layer_{key}": ... for part in ("attn", "expert") for key in ("period", "offset")}
    published = parse_tiny("jamba", num_hidden_layers=16, **left_out)
    assert published.cached_layers == (4, 12) and published.experts is not None
    assert published.experts.layers == (False, True) * 8
    assert parse_tiny("jamba", num_experts=1, num_experts_per_tok=1).experts is None
    assert parse_tiny("jamba", num_experts=..., num_local_experts=6) == config


def test_the_rank_of_how_long_a_token_counts_is_a_sixteenth_where_none_is_said() -> None:
    for rank in (..., None, "auto"):
        found = parse_tiny("mamba", time_step_rank=rank, hidden_size=42).recurrent
        assert isinstance(found, Mamba1Settings) and (found.rank, found.width) == (3, 84)


def test_layers_with_both_have_a_cache_each() -> None:
    config = parse_tiny("falcon_h1")
    assert config.cached_layers == (0, 1) and config.recurrent is not None and config.recurrent.layers == (True, True)
    saved = {"layers_block_type": ["hybrid"] * 2, "attn_layer_indices": None, "mamba_use_mlp": True}
    assert parse_tiny("falcon_h1", **saved) == config


def test_layers_that_keep_a_state_are_all_but_each_so_many_th_where_nothing_lists_them() -> None:
    config = parse_tiny("qwen3_5_text", layer_types=..., full_attention_interval=..., num_hidden_layers=9)
    assert config.cached_layers == (3, 7)
    assert parse_tiny("qwen3_5_text", layer_types=...) == parse_tiny("qwen3_5_text")
