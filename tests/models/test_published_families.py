"""Families that were published with code of their own: what one model_type is of several, and what files say otherwise.

Every logit of each is held to transformers' layers by tests/backends/reference/test_interpret.py, by names of files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from albireo.errors import ModelError, UnsupportedModel
from albireo.models import load_architecture, load_config
from albireo.models.checkpoint.normed_head import with_normed_head
from albireo.models.config_keys import parse_config
from albireo.quantization.formats.matrix import Matrix, Plan
from backends.reference.test_interpret import Model, assert_same_logits, load_torch_model, prompt, torch_logits
from tiny_models import make_checkpoint, parse_tiny, random_weights

pytest.importorskip("transformers")

_OF_7B = {"model_max_length": 128, "max_position_embeddings": 128}
_OF_FIRST: dict[str, Any] = {"z_loss_weight": None}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Baichuan 7B": ("baichuan", {**_OF_7B, **_OF_FIRST, "architectures": ["BaiChuanForCausalLM"]}),
    "Baichuan 13B": ("baichuan", _OF_FIRST),
    "Baichuan 2 7B": ("baichuan", _OF_7B),
    "ChatGLM without groups": ("chatglm", {"multi_query_group_num": 4, "rope_ratio": 1}),
    "DeepSeek MoE, renormalized": ("deepseek", {"norm_topk_prob": True}),
    "Jais, scores by the root": ("jais", {"scale_qk_dot_by_d": False}),
    "Ouro once": ("ouro", {"total_ut_steps": 1}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_model_type_is_besides(name: str, tmp_path: Path) -> None:
    kind, changes = VARIANTS[name]
    changed = {**load_architecture(kind).tiny, **changes}
    config = {key: value for key, value in changed.items() if value is not None}
    make_checkpoint(tmp_path, config, seed=3)
    tokens = prompt(config, 29, 5)
    assert_same_logits(Model(tmp_path).logits(tokens, [20, 1]), torch_logits(load_torch_model(tmp_path), tokens))


def test_only_13b_has_scores_that_fall(tmp_path: Path) -> None:
    of_13b, of_7b = parse_tiny("baichuan"), parse_tiny("baichuan", max_position_embeddings=96)
    assert len(of_13b.blocks.slopes) == 6 and not of_7b.blocks.slopes
    assert (of_13b.max_position_embeddings, of_7b.max_position_embeddings) == (128, 96)
    sizes = {"num_attention_heads": 40, "max_position_embeddings": 4096}
    wide, narrow = (parse_tiny("baichuan", hidden_size=each, **sizes) for each in (5120, 4000))
    assert len(wide.blocks.slopes) == 40 and not narrow.blocks.slopes


def test_a_quantized_head_whose_rows_would_be_divided_is_refused() -> None:
    """They would be left as they are, and logits would be others."""
    name, stored = "lm_head.weight", cast(Any, {"lm_head.weight": None})
    plan = Plan({name: Matrix(name, (151, 48), "int8", (name,), lambda: np.zeros((151, 48), np.uint8))})
    for config in ({"model_type": "baichuan", "z_loss_weight": 0}, {"model_type": "bailing_moe", "norm_head": True}):
        with pytest.raises(UnsupportedModel, match="whose head is quantized is not read"):
            with_normed_head(plan, stored, config)
    assert with_normed_head(plan, stored, {"model_type": "baichuan"}) is plan


@pytest.mark.parametrize("is_normed", [False, True])
def test_ling_of_before_is_deepseek_moe_under_other_names(is_normed: bool, tmp_path: Path) -> None:
    """Whose oracle is transformers' DeepSeek V2; where norm_head says so, with a head of columns of length one, as its
    code and vLLM's have it (dim=0)."""
    known = {**load_architecture("deepseek").tiny, "norm_topk_prob": True}
    numbers = random_weights(known, 4)
    head = numbers["lm_head.weight"]
    lengths = np.linalg.norm(head, axis=0, keepdims=True)
    held = {**numbers, "lm_head.weight": head / lengths} if is_normed else numbers
    theirs = load_torch_model(make_checkpoint(tmp_path / "known", known, weights=held))
    same = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "rms_norm_eps",
    )
    same += ("num_key_value_heads", "max_position_embeddings", "rope_theta", "moe_intermediate_size", "hidden_act")
    config = {key: known[key] for key in (*same, "norm_topk_prob", "first_k_dense_replace", "num_experts_per_tok")}
    config |= {"architectures": ["BailingMoeForCausalLM"], "model_type": "bailing_moe", "norm_head": is_normed}
    config |= {"num_experts": 10, "num_shared_experts": 2, "use_bias": False, "use_qkv_bias": False, "eos_token_id": 2}
    config |= {"tie_word_embeddings": False, "rope_scaling": None, "multi_gate": False, "norm_softmax": False}
    renamed = {_as_ling(name): value for name, value in numbers.items() if not name.endswith(_OF_ATTENTION)}
    for layer in range(3):
        block = f"model.layers.{layer}.self_attn"
        rows = [numbers[f"{block}.{part}_proj.weight"] for part in "qkv"]
        renamed[f"model.layers.{layer}.attention.query_key_value.weight"] = np.concatenate(rows)
    ours, tokens = make_checkpoint(tmp_path / "ling", config, weights=renamed), prompt(config, 29, 5)
    assert_same_logits(Model(ours).logits(tokens), torch_logits(theirs, tokens))


_OF_ATTENTION = tuple(f".{part}_proj.weight" for part in ("self_attn.q", "self_attn.k", "self_attn.v"))


def _as_ling(name: str) -> str:
    for known, published in (("embed_tokens", "word_embeddings"), (".self_attn.o_proj.", ".attention.dense.")):
        name = name.replace(known, published)
    return name


def test_what_ling_of_before_leaves_out_is_what_its_class_says() -> None:
    """Of BailingMoeConfig."""
    tiny = {**load_architecture("bailing_moe").tiny, "architectures": ["BailingMoeForCausalLM"]}
    said = {"norm_topk_prob": True, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "n_group": 1, "topk_group": 1}
    said |= {"first_k_dense_replace": 0, "routed_scaling_factor": 1.0, "use_qk_norm": False}
    rules = load_architecture("bailing_moe").rules
    rest = {key: value for key, value in tiny.items() if key not in said}
    assert parse_config(rest, rules) == parse_config({**rest, **said}, rules)


def test_chatglm_without_groups_has_its_rows_head_by_head(tmp_path: Path) -> None:
    """Of each head its query, key and value."""
    grouped = {**load_architecture("chatglm").tiny, "multi_query_group_num": 4}
    numbers, heads = random_weights(grouped, 4), grouped["num_attention_heads"]
    by_head = {
        name: value.reshape(3, heads, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
        if ".query_key_value." in name
        else value
        for name, value in numbers.items()
    }
    made = make_checkpoint(tmp_path / "grouped", grouped, weights=numbers)
    plain = make_checkpoint(tmp_path / "plain", {**grouped, "multi_query_attention": False}, weights=by_head)
    tokens = prompt(grouped, 21, 4)
    assert np.array_equal(Model(made).logits(tokens), Model(plain).logits(tokens))


@pytest.mark.parametrize("place", ["THUDM/chatglm2-6b-32k", "/models/ChatGLM2-6B-32K", "codegeex2-6b"])
def test_chatglm2_divides_positions_where_later_ones_multiply_the_base(place: str) -> None:
    rules, tiny = load_architecture("chatglm").rules, load_architecture("chatglm").tiny
    divided = parse_config({**tiny, "rope_ratio": 4, "_name_or_path": place}, rules).rope
    assert (divided.rope_type, divided.factor, divided.theta) == ("linear", 4.0, 10000.0)
    later = parse_config({**tiny, "rope_ratio": 4, "_name_or_path": "THUDM/chatglm3-6b-32k"}, rules).rope
    assert (later.rope_type, later.theta) == ("default", 40000.0)
    assert parse_config({**tiny, "rope_ratio": 1, "_name_or_path": place}, rules).rope.rope_type == "default"


def test_ling_says_how_experts_are_chosen() -> None:
    first = {"architectures": ["BailingMoeForCausalLM"], "n_group": 1, "topk_group": 1}
    found = parse_tiny("bailing_moe", **first).experts
    assert found is not None and found.scores == "softmax" and not found.has_bias
    newer = parse_tiny("bailing_moe").experts
    assert newer is not None and newer.scores == "sigmoid" and newer.has_bias
    with pytest.raises(UnsupportedModel, match="moe_router_enable_expert_bias"):
        parse_tiny("bailing_moe", **first, moe_router_enable_expert_bias=True)
    with pytest.raises(UnsupportedModel, match="n_group"):
        parse_tiny("bailing_moe", **{**first, "n_group": 4})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen", {"intermediate_size": 151}, "intermediate_size=151 must be even"),
        ("openelm", {"num_query_heads": [4, 6]}, "num_query_heads=.* for each of 3 layers"),
        ("openelm", {"num_query_heads": [4, 5, 6]}, "of layer 1 must be a multiple of num_kv_heads=2"),
        ("openelm", {"ffn_multipliers": [0.5, -1.0, 1.0]}, "ffn_multipliers"),
        ("deci", {"num_key_value_heads_per_layer": [4, 3, 1]}, "a divisor of num_attention_heads=4"),
        ("solar", {"bskcn_1": [4]}, "bskcn_3=3 reads what a layer of bskcn_1 before it keeps"),
        ("solar", {"bskcn_tv": [0.5]}, "bskcn_tv"),
        ("ouro", {"total_ut_steps": 0}, "total_ut_steps"),
    ],
)
def test_what_cannot_be_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny(name, **changes)


def test_keys_that_say_the_same_otherwise() -> None:
    family = {
        "mup_embeddings_scale": 4.6,
        "mup_output_alpha": 2.0,
        "mup_width_scale": 0.2,
        "mup_scale_qk_dot_by_d": True,
    }
    first = dict.fromkeys(("embeddings_scale", "width_scale", "scale_qk_dot_by_d"))
    assert parse_tiny("jais", **first, **family) == parse_tiny("jais")
    rules, tiny = load_architecture("chatglm").rules, load_architecture("chatglm").tiny
    assert parse_config({**tiny, "rope_ratio": 500}, rules).rope.theta == 5e6
    plain = {key: value for key, value in tiny.items() if key != "multi_query_attention"}
    assert parse_config(plain, rules).num_kv_heads == 4  # each query head has keys of its own
    scaled = load_architecture("telechat3").tiny["rope_scaling"]
    assert parse_tiny("telechat3").rope.attention_factor == pytest.approx(1 + 0.07 * np.log(scaled["factor"]))


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [("jais", "transformer.relative_pe.slopes", (6, 1)), ("xglm", "model.embed_positions.weights", (130, 48))],
)
def test_what_follows_from_config_may_be_there_all_the_same(
    kind: str, name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    tiny, file = load_architecture(kind).tiny, tmp_path / "model.safetensors"
    make_checkpoint(tmp_path, tiny, seed=4)
    tokens, held = prompt(tiny, 21, 4), load_file(file)
    without = Model(tmp_path).logits(tokens)
    assert name not in held
    save_file({**held, name: np.ones(shape, np.float32)}, file)
    assert np.array_equal(Model(tmp_path).logits(tokens), without)


def test_openelm_by_its_names(tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", load_architecture("openelm").tiny, seed=3)
    load_torch_model(made).save_pretrained(tmp_path / "published")
    assert load_config(tmp_path / "published") == load_config(made)
    tokens = prompt(load_architecture("openelm").tiny, 21, 4)
    ours = [Model(tmp_path / each).logits(tokens) for each in ("made", "published")]
    assert np.array_equal(*ours)
