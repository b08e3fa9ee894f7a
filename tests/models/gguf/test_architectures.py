"""GGUF files of every architecture, as llama.cpp's converters make them of a checkpoint, against that checkpoint: the
same logits, and what load_config() says.

The files that the converters themselves made were compared once by hand, with llama.cpp's logits too: docs/journal.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import EngineError, ModelError, UnsupportedModel, WeightMismatch
from albireo.json_file import keys
from albireo.models import load_config
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.gguf.architectures import ARCHITECTURES
from in_turn import in_turn
from models.gguf import further_conversions
from models.gguf.conversion_keys import common_keys
from models.gguf.conversions import CONVERSIONS, OLDER, Conversion, write
from models.gguf.further_conversions import tiny
from models.gguf.lying import assert_blocks_are_what_is_read
from models.gguf.test_models import logits_of
from models.gguf.writer import CONFIGS, MIXTURES, Array, gguf
from models.transformers_logits import distance
from tiny_latent import with_up_projections_joined
from tiny_models import make_checkpoint, random_weights

_ROPE = {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25}
_DELTA = {"hidden_size": 64, "linear_key_head_dim": 16, "linear_value_head_dim": 32, "rope_parameters": _ROPE}
_MAMBA = {"hidden_size": 64, "mamba_d_head": 32, "mamba_d_state": 16, "intermediate_size": 32}
_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0}
_LATENT = {"rope_scaling": _YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}, "num_nextn_predict_layers": ...}
_NO_EXPERTS = dict.fromkeys(
    keys(
        "n_routed_experts num_experts_per_tok moe_intermediate_size n_shared_experts n_group topk_group",
        "moe_shared_expert_intermediate_size norm_topk_prob routed_scaling_factor",
    ),
    ...,
)
_FULL = {"sliding_window": None, "sliding_window_pattern": None, "layer_types": ["full_attention"] * 3}
#: Of Falcon-H1: what settings of a file say that has its multipliers in its matrices.
_NEUTRAL: dict[str, Any] = {
    f"{of}_multiplier": 1.0
    for of in ("embedding", "lm_head", "key", "attention_in", "attention_out", "ssm_in", "ssm_out")
}
_NEUTRAL |= {"ssm_multipliers": [1.0] * 5, "mlp_multipliers": [1.0] * 2}
_LONG = {"long_factor": [1.0 + 0.5 * i for i in range(6)], "short_factor": [1.0 + 0.1 * i for i in range(6)]}
_LONG |= {"rope_type": "longrope", "original_max_position_embeddings": 128}
CASES: Mapping[str, dict[str, Any]] = {
    "llama, InternLM 2": tiny("llama", rope_scaling=None, attention_bias=False, mlp_bias=False),
    "minicpm": tiny("minicpm"),
    "minicpm, long contexts": tiny("minicpm", rope_scaling=_LONG),
    "llama4_text": tiny(
        "llama4_text",
        num_hidden_layers=4,
        no_rope_layers=[1, 1, 1, 0],
        attention_chunk_size=8192,
        floor_scale=8192,
    ),
    "exaone_moe": tiny("exaone_moe", scoring_func="sigmoid"),
    "bailing_moe": tiny("bailing_moe", scoring_func="sigmoid", hidden_size=64),
    "hunyuan_v1_moe": tiny("hunyuan_v1_moe", moe_intermediate_size=40, num_shared_expert=1),
    "qwen3_5_text": tiny("qwen3_5_text", **_DELTA),
    "qwen3_5_moe_text": tiny("qwen3_5_moe_text", **_DELTA, linear_num_key_heads=2, linear_num_value_heads=6),
    "qwen3_next": tiny("qwen3_next", **_DELTA, partial_rotary_factor=..., mlp_only_layers=[]),
    "lfm2": tiny("lfm2", layer_types=["conv", "full_attention"] * 2),
    "lfm2_moe": tiny("lfm2_moe", routed_scaling_factor=1.0),  # which converters do not write
    "gemma3n_text": tiny("gemma3n_text", vocab_size_per_layer_input=139),
    "gemma4_text": tiny("gemma4_text", num_kv_shared_layers=0),
    "gemma4_text, embeddings of layers": tiny(
        "gemma4_text",
        num_kv_shared_layers=2,
        hidden_size_per_layer_input=16,
        vocab_size_per_layer_input=139,
        num_hidden_layers=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        attention_k_eq_v=False,
        num_global_key_value_heads=None,
        use_double_wide_mlp=True,
    ),
    "gemma4_text, experts": tiny(
        "gemma4_text",
        num_kv_shared_layers=0,
        enable_moe_block=True,
        num_experts=6,
        top_k_experts=2,
        moe_intermediate_size=24,
    ),
    "falcon_h1": tiny("falcon_h1", **_NEUTRAL),
    "falcon_h1, multipliers": tiny("falcon_h1", hidden_size=64, intermediate_size=64, mamba_rms_norm=True, head_dim=16),
    "mamba2": tiny("mamba2", hidden_size=64, head_dim=32, tie_word_embeddings=True),
    "granitemoehybrid": tiny("granitemoehybrid", **_MAMBA),
    "granitemoehybrid, dense": tiny(
        "granitemoehybrid", **_MAMBA | {"intermediate_size": 36}, num_local_experts=0, num_experts_per_tok=0
    ),
    "granitemoe": tiny("granitemoe"),
    "nemotron_h": tiny("nemotron_h", hidden_size=64, hybrid_override_pattern="M-*-M-", **_NO_EXPERTS),
    "nemotron_h, experts": tiny(
        "nemotron_h", hidden_size=64, hybrid_override_pattern="ME*EME", n_group=1, topk_group=1, mlp_bias=False
    ),
    "nemotron_h, experts of a latent": tiny(
        "nemotron_h", hybrid_override_pattern="ME*EME", moe_latent_size=16, mlp_bias=False
    ),
    "deepseek_v2": tiny("deepseek_v2", **_LATENT, n_group=1, topk_group=1, topk_method="greedy"),
    "deepseek_v3": tiny("deepseek_v3", **_LATENT, scoring_func="sigmoid", hidden_size=64),
    "glm4_moe_lite": tiny("glm4_moe_lite", **_LATENT, mlp_layer_types=..., first_k_dense_replace=1),
    "youtu": tiny("youtu"),
    "ministral3": tiny("ministral3"),
    "mistral": tiny("mistral", sliding_window=None),
    "qwen3": tiny("qwen3"),
    "qwen3_moe": tiny("qwen3_moe", mlp_only_layers=[]),
    "glm": tiny("glm", hidden_size=64),
    "glm4": tiny("glm4"),
    "glm4_moe": tiny("glm4_moe", num_nextn_predict_layers=..., use_qk_norm=True),
    "ernie4_5": tiny("ernie4_5"),
    "ernie4_5_moe": tiny("ernie4_5_moe", moe_layer_end_index=3),
    "exaone": tiny("exaone", rope_scaling=None, hidden_size=64, head_dim=16),
    "exaone4": tiny("exaone4"),
    "exaone4, without windows": tiny("exaone4", **_FULL),
    "seed_oss": tiny("seed_oss"),
    "olmoe": tiny("olmoe"),
    "olmo3": tiny("olmo3"),
    "starcoder2": tiny("starcoder2", sliding_window=None),
    "minimax_m2": tiny("minimax_m2"),
    "dots1": tiny("dots1"),
    "cohere": tiny("cohere"),
    "cohere2": tiny("cohere2", sliding_window_pattern=4, num_hidden_layers=4),
    "olmo": tiny("olmo"),
    "nemotron": tiny("nemotron", hidden_size=64, intermediate_size=96),
    "gpt_bigcode": tiny("gpt_bigcode", n_embd=64, n_inner=256),
    "arcee": tiny("arcee", rope_scaling=_YARN),
    "hunyuan_v1_dense": tiny("hunyuan_v1_dense"),
    "falcon": tiny("falcon", hidden_size=64, ffn_hidden_size=256, num_kv_heads=1),
    "falcon, groups": tiny(
        "falcon", ffn_hidden_size=192, new_decoder_architecture=True, num_kv_heads=2, multi_query=False
    ),
    "falcon, groups and one norm": tiny(
        "falcon",
        ffn_hidden_size=192,
        new_decoder_architecture=True,
        num_kv_heads=2,
        multi_query=False,
        num_ln_in_parallel_attn=1,
    ),
    "stablelm": tiny("stablelm"),
    "gpt_neox": tiny("gpt_neox"),
    "gpt2": tiny("gpt2"),
    "phi": tiny("phi", intermediate_size=192, num_key_value_heads=4),
    **further_conversions.CASES,
}


def conversion_of(name: str) -> Conversion:
    known = {**CONVERSIONS, **further_conversions.CONVERSIONS}
    return known.get(name) or known[name.partition(",")[0]]


def both(
    directory: Path,
    name: str,
    conversion: Conversion | None = None,
    kind: str = "F32",
    settings: Mapping[str, Any] | None = None,
    change: Callable[[dict[str, Array]], object] = lambda weights: None,
) -> tuple[Path, Path]:
    """The checkpoint of a case, and its GGUF file. Args: kind, settings: see write(). change: of what it is made of."""
    config = CASES[name]
    weights = random_weights(config, 5)
    if kind != "F32":  # such numbers as stand in blocks
        number = gguf.GGMLQuantizationType[kind]
        for each, array in weights.items():
            if each == "model.embed_tokens_per_layer.weight":  # which stays in 16 bits then
                weights[each] = (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            elif array.ndim > 1 and array.shape[-1] % 32 == 0:
                weights[each] = gguf.dequantize(gguf.quantize(array, number), number)
    make_checkpoint(directory / "checkpoint", config, weights=weights)
    source = with_up_projections_joined(config, weights) if "kv_lora_rank" in config else dict(weights)
    change(source)
    write(directory / "m.gguf", config, source, conversion or conversion_of(name), kind, settings)
    return directory / "checkpoint", directory / "m.gguf"


def test_every_architecture_is_here_or_with_the_first_ones() -> None:
    first = {"gemma3_text": "gemma3", "mixtral": "llama", "gpt_oss": "gpt-oss", "qwen2_moe": "qwen2moe"}
    first |= {"qwen3_moe": "qwen3moe"}
    kinds = {config["model_type"] for config in (*CONFIGS.values(), *MIXTURES.values())}
    tested = {conversion_of(name).arch for name in CASES} | {first.get(kind, kind) for kind in kinds}
    # encoders, which give no logits, are in test_encoders.py
    assert tested == {name for name, each in ARCHITECTURES.items() if not each.is_encoder}


#: What is multiplied behind rounding there is rounded anew here.
MULTIPLIED = "falcon_h1, multipliers"


@in_turn(("name", CASES), ("kind", ["F32", "Q8_0"]))
def test_logits_are_those_of_the_checkpoint(name: str, kind: str, tmp_path: Path) -> None:
    checkpoint, file = both(tmp_path, name, kind="F32" if name == MULTIPLIED else kind)
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


#: Whose rows or columns lie in another order, or of two tensors.
MOVED = ("qwen3_5_text", "qwen3_5_moe_text", "falcon, groups", "granitemoehybrid", "mistral")


@pytest.mark.parametrize("name", MOVED)
def test_blocks_that_are_packed_where_they_lie_are_those_that_are_read(name: str, tmp_path: Path) -> None:
    _, file = both(tmp_path, name, kind="Q8_0")
    with Checkpoint(file) as checkpoint:
        assert 0 < assert_blocks_are_what_is_read(checkpoint) <= len(checkpoint.encodings)


@pytest.mark.parametrize("name", [name for name in CASES if name != MULTIPLIED])
def test_settings_are_those_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    wanted, got = (load_config(path) for path in both(tmp_path, name))
    assert got.eos_token_ids == () and got.stored_dtype == "float32"
    for part in (
        "num_layers",
        "windows",
        "rotates",
        "cached_layers",
        "kv_shapes",
        "hidden_act",
        "scale",
        "blocks.latent",
    ):
        mine, theirs = (config for config in (got, wanted))
        for step in part.split("."):
            mine, theirs = getattr(mine, step), getattr(theirs, step)
        assert mine == (pytest.approx(theirs, rel=1e-6) if part == "scale" else theirs), part
    if name == "qwen3_next":  # the same, once its projections lie apart
        wanted = replace(wanted, recurrent=replace(wanted.recurrent, lies_by_head=False))
    assert got.recurrent == wanted.recurrent
    if wanted.experts is not None:
        assert got.experts == replace(wanted.experts, factor=pytest.approx(wanted.experts.factor, rel=1e-6))


WITH_LAYERS_BEHIND = {"qwen3_5_text": 1, "glm4_moe": 2}


@pytest.mark.parametrize("name", WITH_LAYERS_BEHIND)
def test_layers_that_guess_further_tokens_are_left_where_they_lie(name: str, tmp_path: Path) -> None:
    count, layers = WITH_LAYERS_BEHIND[name], CASES[name]["num_hidden_layers"]
    settings = {"block_count": layers + count, "nextn_predict_layers": count}

    def change(weights: dict[str, Array]) -> None:
        last = {each: array for each, array in weights.items() if each.startswith(f"model.layers.{layers - 1}.")}
        for i in range(layers, layers + count):
            weights |= {each.replace(f".{layers - 1}.", f".{i}.", 1): array for each, array in last.items()}
            weights[f"blk.{i}.nextn.eh_proj.weight"] = np.ones((4, 8), np.float32)

    checkpoint, file = both(tmp_path, name, settings=settings, change=change)
    assert load_config(file).num_layers == layers
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


def test_keys_and_values_of_layers_that_read_anothers_are_left_where_they_lie(tmp_path: Path) -> None:
    def change(weights: dict[str, Array]) -> None:
        for part in ("k_proj", "v_proj", "k_norm"):
            shape = (16,) if part == "k_norm" else (32, 48)
            weights[f"model.layers.2.self_attn.{part}.weight"] = np.ones(shape, np.float32)

    checkpoint, file = both(tmp_path, "gemma4_text, embeddings of layers", change=change)
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


@pytest.mark.parametrize("name", OLDER)
def test_files_from_before_converters_changed(name: str, tmp_path: Path) -> None:
    """Qwen 3 Next with its projections in one tensor; DeepSeek with heads of keys and values."""
    checkpoint, file = both(tmp_path, name, OLDER[name])
    assert load_config(file).model_type == name
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


@pytest.mark.parametrize("name", ["phi", "glm"])
def test_queries_keys_and_values_in_one_tensor(name: str, tmp_path: Path) -> None:
    """Of Phi 2, before converters took them apart; of GLM 4 as it was first published."""

    def change(weights: dict[str, Array]) -> None:
        for i in range(2):
            for kind in ("weight", "bias"):
                parts = [weights.pop(f"model.layers.{i}.self_attn.{p}_proj.{kind}") for p in "qkv"]
                weights[f"blk.{i}.attn_qkv.{kind}"] = np.concatenate(parts)

    checkpoint, file = both(tmp_path, name, change=change)
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


def test_which_matrices_stay_in_blocks(tmp_path: Path) -> None:
    """Rows, and columns by whole heads, are put in order, gate and up joined; what latents go through is decoded."""
    _, file = both(tmp_path, "qwen3_5_text", kind="Q8_0")
    with Checkpoint(file) as stored:
        parts = ("in_proj_qkv", "in_proj_z", "out_proj", "in_proj_a", "in_proj_b")
        assert {stored.kind(f"model.layers.0.linear_attn.{part}.weight") for part in parts} == {"int8.g32"}
    _, file = both(tmp_path / "2", "granitemoehybrid", kind="Q8_0")
    with Checkpoint(file) as stored:
        assert stored.kind("model.layers.0.shared_mlp.input_linear.weight") == "int8.g32"
    _, file = both(tmp_path / "3", "deepseek_v3", kind="Q8_0")
    with Checkpoint(file) as stored:
        assert stored.kind("model.layers.0.self_attn.v_up_proj.weight") == "float32"
        assert stored.kind("model.layers.0.self_attn.kv_a_proj_with_mqa.weight") == "int8.g32"
        assert any("numbers of the compute type" in note for note in stored.notes)


@pytest.mark.parametrize(
    ("kind", "width", "encoding"),
    [
        ("Q8_0", 32, "int8.g32"),
        ("Q4_1", 32, "int4.g32.affine"),
        ("MXFP4", 32, "fp4.g32"),
        ("Q8_0", 24, "float32"),  # heads that are no whole blocks
    ],
)
def test_columns_of_heads_are_put_in_order(kind: str, width: int, encoding: str, tmp_path: Path) -> None:
    config = {**CASES["qwen3_5_text"], "linear_value_head_dim": width}
    weights, name = random_weights(config, 6), "model.layers.0.linear_attn.out_proj.weight"
    write(tmp_path / "m.gguf", config, weights, CONVERSIONS["qwen3_5_text"], kind)
    order = np.arange(4 * width).reshape(2, 2, width).swapaxes(0, 1).reshape(-1)
    number = gguf.GGMLQuantizationType[kind]
    wanted = np.empty_like(weights[name])
    wanted[:, order] = gguf.dequantize(gguf.quantize(np.ascontiguousarray(weights[name][:, order]), number), number)
    with Checkpoint(tmp_path / "m.gguf") as stored:
        assert stored.kind(name) == encoding
        np.testing.assert_allclose(stored.tensor(name).to_float32(), wanted, rtol=2**-22)


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("qwen3_5_text", {"ssm.inner_size": 81}, ModelError, r"ssm.inner_size=81 must be a multiple of .*rank=4"),
        ("qwen3_5_text", {"ssm.group_count": None}, ModelError, "ssm.group_count is missing"),
        ("qwen3_5_text", {"attention.recurrent_layers": [True, False]}, ModelError, "or one for each of 4 layers"),
        (
            "qwen3_5_text",
            {"nextn_predict_layers": 4},
            ModelError,
            "nextn_predict_layers=4 must be less than block_count",
        ),
        (
            "qwen3_5_text",
            {"block_count": 10**6},
            ModelError,
            "block_count=1000000 must be a whole number from 1 to 4096",
        ),
        (
            "lfm2_moe",
            {"expert_gating_func": 1},
            UnsupportedModel,
            "expert_gating_func=1 is not supported; supported: 2",
        ),
        ("lfm2", {"attention.head_count_kv": [0, 2, 0, 1]}, ModelError, "must be a whole number"),
        ("lfm2", {"rope.dimension_count": 8}, UnsupportedModel, "rope.dimension_count=8 is not supported; .*: 10"),
        ("dots1", {"expert_gating_func": 1}, UnsupportedModel, "expert_gating_func=1"),
        ("deepseek_v3", {"expert_gating_func": 3}, UnsupportedModel, "expert_gating_func=3 is not supported"),
        ("deepseek_v3", {"attention.temperature_scale": 0.1}, UnsupportedModel, "'attention.temperature_scale': 0.1"),
        ("hy_v3", {"expert_weights_norm": False}, UnsupportedModel, "expert_weights_norm=False is not supported"),
        ("granitemoe", {"rope.scaling.finetuned": False}, UnsupportedModel, "finetuned=False is not supported; it st"),
        ("granitemoehybrid", {"ssm.inner_size": 96}, UnsupportedModel, "must be a multiple of embedding_length=64"),
        ("gemma4_text", {"feed_forward_length": [72, 72, 80]}, UnsupportedModel, r"feed_forward_length=\[72, 72, 80\]"),
        ("gemma4_text", {"rope.dimension_count": 16}, UnsupportedModel, "rope.dimension_count=16"),
        ("gemma4_text", {"attention.value_length_swa": 8}, UnsupportedModel, "attention.value_length_swa=8"),
        ("cohere", {"logit_scale": "x"}, ModelError, "logit_scale='x' must be a number"),
        ("gpt_neox", {"use_parallel_residual": 1}, ModelError, "use_parallel_residual=1 must be true or false"),
    ],
)
def test_settings_that_are_not_computed(
    name: str, settings: dict[str, Any], error: type[ModelError], message: str, tmp_path: Path
) -> None:
    _, file = both(tmp_path, name, settings=settings)
    with pytest.raises(error, match=message) as caught:
        load_config(file)
    assert "m.gguf" in str(caught.value)


@pytest.mark.parametrize("name", ["olmo3", "exaone_moe"])
def test_windows_in_all_layers_or_none(name: str, tmp_path: Path) -> None:
    """A flag for each layer, all alike, is no number of layers from one without a window to the next."""
    layers = CASES[name]["num_hidden_layers"]
    for flag in (True, False):
        settings = {"attention.sliding_window_pattern": [flag] * layers}
        _, file = both(tmp_path / str(flag), name, settings=settings)
        window = CASES[name]["sliding_window"] if flag else None
        assert load_config(file).windows == (window,) * layers


def test_granite_rotates_where_nobody_says_that_it_does_not(tmp_path: Path) -> None:
    _, file = both(tmp_path, "granitemoehybrid", settings={"rope.scaling.finetuned": None})
    assert all(load_config(file).rotates)


def _grown(weights: dict[str, Array]) -> None:
    weights["model.layers.0.linear_attn.A_log"][:] = np.nan


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("qwen3_5_text", {"ssm.time_step_rank": 8}, r"in_proj_b.weight' is \[4, 64\]; settings imply 8 channels"),
        ("qwen3_5_text", {"ssm.state_size": 2**31 - 1}, "settings imply 8589934716 channels of heads"),
        ("qwen3_next", {"ssm.time_step_rank": 2}, r"in_proj_ba.weight' is \[8, 64\]; settings imply 4 rows"),
        ("falcon, groups", {"attention.head_count": 2**31 - 2}, "96 rows, which are not 2147483650 heads"),
        ("granitemoe", {"attention.head_count_kv": 5}, "24 rows, which are not pairs of 5 heads"),
    ],
)
def test_tensors_that_are_not_what_settings_say(
    name: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    _, file = both(tmp_path, name, settings=settings)
    with pytest.raises(WeightMismatch, match=message):
        Checkpoint(file)


def test_a_state_that_grows_is_refused(tmp_path: Path) -> None:
    _, file = both(tmp_path, "qwen3_5_text", change=_grown)
    what = r"0\.linear_attn\.A_log' holds a number that is not below 0"
    with Checkpoint(file) as checkpoint, pytest.raises(WeightMismatch, match=what):
        checkpoint.tensor("model.layers.0.linear_attn.A_log")


_ODD = (0, 2**31 - 1, -1, "x", "", True, 1.5, float("nan"), [0, 0, 0, 0], [1, 2], [2**30] * 3, ["a"], [True] * 50)


@in_turn(("name", CASES), ("half", (0, 1)))
def test_odd_settings_are_refused_or_read(name: str, half: int, tmp_path: Path) -> None:
    """Six keys of an architecture, in two halves, each with one of the values above."""
    config, conversion, rng = CASES[name], conversion_of(name), random.Random(f"{name} {half}")
    weights = random_weights(config, 5)
    weights = with_up_projections_joined(config, weights) if "kv_lora_rank" in config else weights
    keys_of_all = {**common_keys(config), **conversion.keys(config), "nextn_predict_layers": 0, "expert_gating_func": 0}
    for key in rng.sample(sorted(keys_of_all), 3):
        value = rng.choice(_ODD)
        write(tmp_path / "m.gguf", config, weights, conversion, settings={key: value})
        try:
            load_config(tmp_path / "m.gguf")
            Checkpoint(tmp_path / "m.gguf").close()
        except EngineError as error:
            assert str(error), (key, value)
