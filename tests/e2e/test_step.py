"""Step 3.5 and 3.7 Flash as their authors publish them: lists of layers, those behind the last too, and other words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError
from albireo.models import load_architecture
from albireo.models.config_keys import parse_config
from albireo.models.vision.tower import has_tower
from e2e.test_parity import assert_near, reference, serve
from tiny_models import make_checkpoint, parse_tiny, write_safetensors

NAME = "step3p5"
TINY: dict[str, Any] = dict(load_architecture(NAME).tiny)
#: Of TINY the same: two layers behind the last, whose entries are any.
_OTHER = {"attention_type": "sliding_attention", "num_attention_heads": 6, "num_attention_groups": 2, "head_dim": 16}
PUBLISHED: dict[str, Any] = {
    **{key: TINY[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim")},
    **{key: TINY[key] for key in ("num_attention_heads", "max_position_embeddings", "rms_norm_eps", "sliding_window")},
    **{key: TINY[key] for key in ("moe_intermediate_size", "share_expert_dim", "moe_router_scaling_factor")},
    "architectures": ["Step3p5ForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_step3p5.Step3p5ForCausalLM"},
    "model_type": NAME,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "num_nextn_predict_layers": 2,
    "num_attention_groups": 2,
    "moe_num_experts": 9,
    "moe_top_k": 3,
    "moe_layers_enum": "1,2",
    "layer_types": [*TINY["layer_types"], "sliding_attention", "sliding_attention"],
    "attention_other_setting": {**_OTHER, "true_head_dim": 16},
    "rope_theta": [1e4, 5e5, 1e4, 1e4, 1e4],
    "partial_rotary_factors": [1.0, 0.5, 1.0, 1.0, 1.0],
    "rope_scaling": {
        **{"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 32.0},
        "original_max_position_embeddings": 64,
    },
    "yarn_only_types": ["full_attention"],
    "swiglu_limits": [*TINY["swiglu_limits"], 0.0, 0.0],
    "swiglu_limits_shared": [*TINY["swiglu_limits_shared"], 0.0, 0.0],
    **dict.fromkeys(("norm_expert_weight", "need_fp32_gate", "use_head_wise_attn_gate", "use_moe"), True),
    **dict.fromkeys(("use_moe_router_bias", "use_qk_norm", "zero_centered"), True),
    **{"att_impl_type": "GQA", "moe_router_activation": "sigmoid", "moe_every_n_layer": 1, "moe_layer_offset": 0},
    **{"sink": False, "use_rope_layers": [], "max_seq_len": 128, "tie_word_embeddings": False},
}


def test_files_as_published(tmp_path: Path) -> None:
    """Logits of transformers, which reads them, too; and the text part of Step 3.7, beside its tower."""
    directory = make_checkpoint(tmp_path / "text", TINY, 1)
    (directory / "config.json").write_text(json.dumps(PUBLISHED))
    sequences, answers = serve(directory)
    assert_near(sequences, answers, np.concatenate(reference(directory, "float32", sequences)))
    whole = {
        **{"model_type": "step3p7", "architectures": ["Step3p7ForConditionalGeneration"], "text_config": PUBLISHED},
        **{"vision_config": {"width": 16}, "image_token_id": 7, "projector_bias": False, "torch_dtype": "float32"},
        **{"understand_projector_stride": 2, "image_token_len": 169, "patch_token_len": 81},
        "auto_map": {"AutoModelForCausalLM": "modeling_step3p7.Step3p7ForConditionalGeneration"},
    }
    assert not has_tower(whole)
    (directory / "config.json").write_text(json.dumps(whole))
    parts = ("vision_model.conv1.weight", "vit_large_projector.weight", "model.layers.3.enorm.weight")
    write_safetensors(directory / "more.safetensors", {name: np.ones((2, 2), np.float32) for name in parts}, "float32")
    index = {name: "more.safetensors" for name in parts}
    from safetensors import safe_open

    with safe_open(directory / "model.safetensors", "np") as file:
        index |= dict.fromkeys(file.keys(), "model.safetensors")
    (directory / "model.safetensors").rename(directory / "text.safetensors")
    index = {name: file.replace("model.", "text.") for name, file in index.items()}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    again, of_whole = serve(directory)
    assert again == sequences
    assert all((a.rows[p] == b.rows[p]).all() for a, b in zip(answers, of_whole, strict=True) for p in a.rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_theta": [1e4, 5e5, 2e4, 1e4, 1e4]}, "rope_theta=.* the same in all layers of sliding_attention"),
        ({"rope_theta": [1e4]}, "rope_theta=.* must have an entry of each of 3 layers"),
        ({"yarn_only_types": ["sliding_attention"]}, "yarn_only_types=.* is not supported"),
        ({"layer_types": True}, "layer_types=True must be a list of strings"),
        ({"layer_types": [["full_attention"]]}, "layer_types=.* must be a list of strings"),
        ({"num_attention_groups": float("nan")}, "num_attention_groups=2 is not nan"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_parameters=.* contradicts rope_scaling"),
        (
            {"rope_scaling": None, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rope_parameters=.* rope_theta is said of each layer",
        ),
        ({"moe_layers_enum": "1,b"}, "moe_layers_enum='1,b' must be numbers of layers"),
        ({"moe_layers_enum": []}, "no layer has experts"),
        ({"swiglu_limits": [1.0]}, "swiglu_limits=.* one for each of 3 layers"),
        ({"swiglu_limits_shared": [1.0, -1.0, 0.0]}, "swiglu_limits_shared=.* must be a list of numbers from 0"),
        ({"attention_other_setting": {**_OTHER, "head_dim": 32}}, "head_dim=32 is not 16"),
        ({"attention_other_setting": {**_OTHER, "sinks": 1}}, "sinks is not known"),
        ({"attention_other_setting": {**_OTHER, "num_attention_heads": 5}}, "num_sliding_attention_heads=5 must be a"),
        ({"num_sliding_attention_heads": 4}, "num_sliding_attention_heads=4 contradicts attention_other_setting"),
        ({"use_head_wise_attn_gate": False}, "'use_head_wise_attn_gate': False"),
        ({"use_rope_layers": [True, False, True]}, "'use_rope_layers'"),
        ({"sink": True}, "'sink': True"),
        ({"per_layer_config": {"1": {"num_attention_heads": 6}}}, "per_layer_config=.* is not supported"),
    ],
)
def test_what_is_not_computed_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_config(PUBLISHED | changes, load_architecture(NAME).rules)


def test_what_is_published_says_the_same() -> None:
    rules = load_architecture(NAME).rules
    assert parse_config(PUBLISHED, rules) == parse_tiny(NAME)
    # as newer programs write what stretches a rotation, in place of the other name, or beside it
    named_anew = {**PUBLISHED, "rope_parameters": PUBLISHED["rope_scaling"]}
    for data in (named_anew, {key: value for key, value in named_anew.items() if key != "rope_scaling"}):
        assert parse_config(data, rules) == parse_tiny(NAME)
