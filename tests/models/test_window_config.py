"""config.json of models of which some layers have a window: which do, how they rotate, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import ModelError
from albireo.models import load_architecture
from tiny_models import parse_tiny


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        (
            "cohere2_moe",
            {"expert_selection_fn": "best"},
            "expert_selection_fn='best' is not supported; supported: soft",
        ),
        (
            "apertus1p5_text",
            {"rope_parameters": None},
            "rope_scaling=None is not supported; it must be said, as published",
        ),
        ("apertus1p5_text", {"output_vocab_size": 0}, "vocab_size=0 must be a whole number"),
        ("cohere2_moe", {"shared_expert_combination_strategy": "max"}, "combination_strategy='max' is not supported"),
        ("cohere2_moe", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "it is said in rope_parameters"),
        ("cohere2_moe", {"sliding_window": None}, "sliding_window=None is not supported"),
        ("cohere2_moe", {"mlp_layer_types": ["dense"] * 3}, "no layer has experts"),
        ("flint", {"mlp_only_layers": [0, 1, 2]}, "no layer has experts"),
        ("kolibri1", {"sliding_window": None}, "sliding_window=None is not supported"),
        ("kolibri1", {"intermediate_size": 64}, "'intermediate_size': 64"),
        ("granite_swa", {"layer_rope_theta": [1e4]}, "layer_rope_theta=.* must be, for each of 5 layers, 0 or a numb"),
        ("granite_swa", {"layer_rope_theta": [1.5] * 5}, "layer_rope_theta=.* must be, for each of 5 layers"),
        ("granite_swa", {"sliding_window": None}, "names sliding_attention but no sliding window is in use"),
        ("granitemoe_swa", {"layer_rope_theta": [0, True]}, "layer_rope_theta=.* must be, for each of 2 layers"),
        ("cohere_compass_text", {"rope_parameters": None}, "must have a rotation, or null, of full_attention, sliding"),
        ("cohere_compass_text", {"pooling": "mean"}, "'pooling': 'mean'"),
        ("laguna", {"gating": False}, "gating=False is not supported; supported: true, per-head, per-element"),
        ("laguna", {"num_attention_heads_per_layer": [4, 5, 4]}, "for each of 3 layers, a multiple of num_key_value_h"),
        ("laguna", {"num_attention_heads_per_layer": [4]}, "num_attention_heads_per_layer=.* must be, for each of 3"),
        ("laguna", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported; it is said of each"),
        ("jetmoe", {"num_attention_heads": 4}, "num_attention_heads=4 must be 2 of each of the 3 experts of a token"),
        ("jetmoe", {"head_dim": 16}, "'head_dim': 16"),
        ("mimo_v2_flash", {"v_head_dim": 25}, "v_head_dim=25 must be"),
        ("mimo_v2_flash", {"swa_head_dim": 16}, "swa_head_dim=16 is not supported; must be head_dim=24"),
        ("mimo_v2_flash", {"swa_num_key_value_heads": 3}, "must be a multiple of swa_num_key_value_heads=3"),
        ("mimo_v2_flash", {"hybrid_layer_pattern": [0, 1]}, "must be a list of 0 and 1, one for each of 3 layers"),
        ("mimo_v2_flash", {"hybrid_layer_pattern": [1, 1, 1]}, "contradicts layer_types; keep one"),
        ("mimo_v2_flash", {"add_full_attention_sink_bias": True}, "'add_full_attention_sink_bias': True"),
        ("mimo_v2_flash", {"mlp_layer_types": ..., "moe_layer_freq": [0, 0, 0]}, "for each of 3 layers, with a 1"),
        *(
            (name, {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_scaling": ...}, what)
            for what in ("must say how full_attention rotates and how sliding_attention does",)
            for name in ("gemma3_text", "gemma3n_text", "olmo3")
        ),
        *(
            (
                name,
                {"rope_parameters": None, "rope_scaling": None},
                "rope_scaling=None is not supported; it must be said",
            )
            for name in ("gpt_oss", "ministral3")
        ),
        ("laguna", {"moe_apply_router_weight_on_input": True}, "'moe_apply_router_weight_on_input': True"),
    ],
)
def test_what_is_not_computed_is_refused(model_type: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny(model_type, **changes)


@pytest.mark.parametrize("model_type", ["flint", "kolibri1", "granite_swa", "mimo_v2_flash"])
def test_windows_that_are_not_said_are_those_of_transformers(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    said = {"num_hidden_layers": 11} | dict.fromkeys(("layer_types", "sliding_window", "layer_rope_theta"), ...)
    said |= {"mlp_layer_types": ...}
    ours, tiny = parse_tiny(model_type, **said), load_architecture(model_type).tiny
    kept = {key: value for key, value in tiny.items() if key not in said}
    theirs = transformers.AutoConfig.for_model(**kept, num_hidden_layers=11)
    wanted = tuple(theirs.sliding_window if kind == "sliding_attention" else None for kind in theirs.layer_types)
    assert ours.windows == wanted and len(set(wanted)) == 2


def test_a_published_file_of_mimo() -> None:
    """Keys of the code beside it, which transformers' class does not read: what they say is what that class has."""
    published = {
        "hybrid_layer_pattern": [0, 1, 1],
        "moe_layer_freq": [0, 1, 1],
        "layernorm_epsilon": 1e-5,
        "rope_theta": 5000000,
        "swa_rope_theta": 10000,
        "partial_rotary_factor": 0.334,
        "swa_num_key_value_heads": 2,
        "swa_num_attention_heads": 4,
        "swa_head_dim": 24,
        "swa_v_head_dim": 16,
        "sliding_window": 16,
        "sliding_window_size": 16,
        "attention_chunk_size": 16,
        "hybrid_block_size": None,
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "n_shared_experts": None,
        "routed_scaling_factor": None,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }
    replaced = dict.fromkeys(("rope_parameters", "layer_types", "mlp_layer_types", "rms_norm_eps"), ...)
    assert parse_tiny("mimo_v2_flash", **replaced | published) == parse_tiny("mimo_v2_flash")


@pytest.mark.parametrize(("first", "pattern"), [(0, 4), (3, 2), (2, 1)])
def test_windows_behind_dense_layers_are_those_of_transformers(first: int, pattern: int) -> None:
    pytest.importorskip("transformers")
    from transformers import Cohere2MoeConfig

    said = {"first_k_dense_replace": first, "prefix_dense_sliding_window_pattern": pattern, "num_hidden_layers": 9}
    ours = parse_tiny("cohere2_moe", layer_types=..., mlp_layer_types=..., **said)
    tiny = load_architecture("cohere2_moe").tiny
    theirs = Cohere2MoeConfig(**{**tiny, "layer_types": None, "mlp_layer_types": None, **said})
    assert ours.windows == tuple(15 if kind == "sliding_attention" else None for kind in theirs.layer_types)
    assert ours.experts is not None
    assert ours.experts.layers == tuple(kind == "sparse" for kind in theirs.mlp_layer_types)
