"""config.json -> the reason why not: keys that change what is computed, and values that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.models import load_architecture, load_config
from albireo.models.config import ConfigRules
from albireo.models.config_keys import parse_config
from albireo.models.settings.text_part import rope_axes, text_settings
from tiny_models import make_checkpoint, parse_tiny


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config", {"quant_method": "fp8"}),
        ("quantization", {"bits": 4}),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("num_experts", 8),
        ("num_local_experts", 8),
        ("partial_rotary_factor", 0.5),
        ("partial_rotary_factor", 0),
        ("attention_sinks", True),
        ("add_bias_linear", True),
        ("auto_map", {"AutoModelForCausalLM": "modeling.Evil"}),
        ("embedding_multiplier", 12.0),
        ("attention_multiplier", 0.0),
        ("rope_interleaved", True),
        ("sliding_window", 128),
        ("use_sliding_window", True),
        ("some_key_of_tomorrow", "on"),
        ("layer_types", ["full_attention", "linear_attention", "full_attention"]),
        ("hidden_act", "quick_gelu"),
        ("torch_dtype", "float64"),
        ("torch_dtype", "float8_e4m3fn"),
        ("architectures", ["LlamaForQuestionAnswering"]),
        ("rope_scaling", {"type": "mrope", "mrope_section": [1, 2, 3]}),
        ("rope_scaling", {"rope_type": "default", "factor": 8.0}),
        ("rope_scaling", {"rope_type": "linear", "factor": 8.0, "alpha": 1000.0}),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 8.0, "original_max_position_embeddings": 17}),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}),
    ],
)
def test_what_changes_the_arithmetic_is_refused_by_name(key: str, value: Any) -> None:
    named = {"rope_scaling": "rope settings"}.get(key, key)
    with pytest.raises(UnsupportedModel, match=named):
        parse_tiny("llama", **{key: value})


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}])
def test_neutral_values_of_unknown_keys_are_accepted(value: Any) -> None:
    assert parse_tiny("llama", some_key_of_tomorrow=value) == parse_tiny("llama")


def test_known_keys_at_their_defaults_are_accepted() -> None:
    neutral = dict(partial_rotary_factor=1.0, is_causal=True, sliding_window=None, use_sliding_window=False)
    assert parse_tiny("llama", pretraining_tp=4, pad_token_id=-1, use_cache=False, **neutral) == parse_tiny("llama")
    assert parse_tiny("mistral", attention_bias=False, mlp_bias=False) == parse_tiny("mistral")


@pytest.mark.parametrize("model_type", ["mistral", "qwen2"])
def test_a_bias_that_an_architecture_has_not_is_refused(model_type: str) -> None:
    with pytest.raises(UnsupportedModel, match="attention_bias"):
        parse_tiny(model_type, attention_bias=True)


NUMBERS = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"]
NUMBERS += ["num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "value", [-1, 0, 10**12, "64", 64.0, float("nan"), [64], {}, True, 10**400], ids=lambda v: str(v)[:9]
)
def test_hostile_sizes_are_named_with_their_value(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"{key}=.*must be") as error:
        parse_tiny("llama", **{key: value})
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", float("inf")),
        ("rms_norm_eps", "1e-5"),
        ("rms_norm_eps", 10**400),
        ("rope_theta", 0),
        ("rope_theta", -10000.0),
        ("rope_theta", [1e4]),
        ("tie_word_embeddings", "yes"),
        ("tie_word_embeddings", 1),
        ("attention_bias", "true"),
        ("mlp_bias", 2),
        ("eos_token_id", -1),
        ("eos_token_id", "2"),
        ("eos_token_id", [2, 131]),
        ("eos_token_id", [[2]]),
        ("bos_token_id", True),
        ("hidden_act", 3),
        ("torch_dtype", 16),
        ("architectures", "LlamaForCausalLM"),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["sliding_attention"] * 3),
        ("layer_types", [1, 2, 3]),
        ("rope_scaling", "linear"),
        ("rope_scaling", [1]),
        ("num_attention_heads", 7),
        ("num_key_value_heads", 4),
        ("head_dim", 7),
    ],
    ids=lambda v: str(v)[:30],
)
def test_hostile_values_are_named(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=key):
        parse_tiny("llama", **{key: value})


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": ["linear"]},
        {"rope_type": "linear"},
        {"rope_type": "linear", "factor": 0.5},
        {"rope_type": "linear", "factor": float("inf")},
        {"rope_type": "linear", "type": "dynamic", "factor": 2.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 5.0, "high_freq_factor": 4.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0, "high_freq_factor": 4.0},
        {"rope_type": "yarn", "factor": 2.0, "beta_fast": 1, "beta_slow": 32},
        {"rope_type": "yarn", "factor": 2.0, "attention_factor": -1.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0},
        {"rope_type": "yarn", "factor": 2.0, "truncate": "no"},
        {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0},
    ],
    ids=str,
)
def test_hostile_rope_settings_are_named(scaling: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="rope settings"):
        parse_tiny("llama", rope_scaling=scaling)


@pytest.mark.parametrize(("first", "second"), [("rope_scaling", "rope_parameters"), ("torch_dtype", "dtype")])
def test_contradictions_are_errors(first: str, second: str) -> None:
    values: Any = ("float16", "float32")
    if first == "rope_scaling":
        values = ({"rope_type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 3.0})
    with pytest.raises(ModelError, match=f"{first}=.* contradicts {second}"):
        parse_tiny("llama", **{first: values[0], second: values[1]})


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size", "model_type"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ModelError, match=f"{key} is missing"):
        parse_tiny("llama", **{key: ...})


def test_rules_default_to_the_strictest() -> None:
    data = {k: v for k, v in load_architecture("llama").tiny.items() if k not in ("attention_bias", "mlp_bias")}
    assert parse_config(data, ConfigRules()).windows == (None,) * 3
    with pytest.raises(UnsupportedModel, match="mlp_bias"):
        parse_config({**data, "mlp_bias": True}, ConfigRules())


@pytest.mark.parametrize("said", [["a"], 5, "abc", [16, 24], [16, 24, 2.0], [-1, 2, 3], [10**9, 1, 1], [1] * 5, {}])
@pytest.mark.parametrize(
    ("model_type", "key"),
    [("qwen2_vl", "mrope_section"), ("qwen3_vl", "mrope_section"), ("hunyuan_vl", "xdrope_section")],
)
def test_pairs_of_axes_that_cannot_be_are_refused(model_type: str, key: str, said: Any) -> None:
    with pytest.raises(ModelError, match=f"{key}=.* must be how many pairs"):
        rope_axes({"model_type": model_type, "text_config": {"rope_scaling": {key: said}}})


def test_a_fourth_axis_that_turns_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"xdrope_section=\[32, 16, 16, 0\] is not supported; some pairs turn"):
        rope_axes({"model_type": "hunyuan_vl", "text_config": {"rope_scaling": {"xdrope_section": [32, 16, 16, 0]}}})


@pytest.mark.parametrize("named", [[], {}, 5, ["qwen2"]])
def test_a_text_part_that_is_named_by_no_word_is_refused(named: Any) -> None:
    with pytest.raises(ModelError, match=r"text_config: model_type=.* must be"):
        text_settings({"model_type": "ovis2", "text_config": {"model_type": named}}, "config.json")


@pytest.mark.parametrize(
    "changes", [{"text_config": 5}, {"text_config": []}, {"text_config": "x"}, {"v_head_dim": -12}]
)
def test_weights_are_opened_beside_a_config_that_says_nonsense(changes: dict[str, Any], tmp_path: Path) -> None:
    """Where config.json names no type, its weights are asked before its keys are read: these are what is told."""
    directory = make_checkpoint(tmp_path, load_architecture("axk2").tiny)
    said = {**load_architecture("axk2").tiny, **changes}
    del said["torch_dtype"]
    (directory / "config.json").write_text(json.dumps(said))
    if changes == {"text_config": []}:  # as if it were not there
        assert load_config(directory).model_type == "axk2"
        return
    with pytest.raises(ModelError, match=next(iter(changes))):
        load_config(directory)


@pytest.mark.parametrize("key", ["text_config", "thinker_config"])
def test_parts_within_parts_are_refused_however_deep(key: str, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, load_architecture("llama").tiny)
    said, nested = json.dumps(load_architecture("llama").tiny), f'"{key}": {{' * 800 + "}" * 800
    (directory / "config.json").write_text(said.removesuffix("}") + ", " + nested + "}")
    with pytest.raises(UnsupportedModel, match=key):
        load_config(directory)
