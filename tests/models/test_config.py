"""config.json -> ModelConfig: real files, and transformers' reading of them. Hostile ones: test_hostile_configs.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ConfigError, ModelError, UnsupportedModel
from albireo.models import architectures, build_graph, load_architecture, load_config
from albireo.models.config import ModelConfig
from albireo.models.settings.block_settings import Latent
from albireo.models.settings.expert_settings import ExpertSettings
from albireo.models.settings.mamba_settings import MambaSettings
from albireo.models.settings.recurrent_settings import GatedDeltaSettings, RecurrentSettings
from albireo.models.settings.text_part import is_whole
from tiny_layer_norm import LAYER_NORMS
from tiny_models import SHARED_DATA, make_checkpoint, parse_tiny, shared_data

REAL = sorted(p.parent.relative_to(SHARED_DATA) for p in SHARED_DATA.glob("configs/**/config.json"))
OURS = architectures()


def test_there_are_real_configs() -> None:
    shared_data("configs")
    assert len(REAL) > 90


#: Whose classes transformers has not: layers that are read of them; or why they are not, a flat one of text alone.
WITHOUT_CLASS = {"nemotron-nas": 80, "step3p7": r"architectures=\['Step3p7FlashForCausalLM'\] is not supported"}


@pytest.mark.parametrize("place", REAL, ids=str)
def test_real_config_is_loaded_or_refused_with_the_reason(place: Path) -> None:
    directory = SHARED_DATA / place
    model_type = json.loads((directory / "config.json").read_text())["model_type"]
    if isinstance(wanted := WITHOUT_CLASS.get(model_type), int):
        assert load_config(directory).num_layers == wanted
    elif wanted is not None:
        with pytest.raises(UnsupportedModel, match=wanted):
            load_config(directory)
    elif model_type not in OURS and not is_whole({"model_type": model_type}):
        with pytest.raises(UnsupportedModel, match=f"model_type '{model_type}' is not supported; supported: .*llama"):
            load_config(directory)
    elif model_type == "gemma4":
        assert_layers_of_two_kinds_are_as_transformers_reads_them(directory)
    else:
        assert_as_transformers_reads_it(directory)


def assert_layer_norms_are_as_transformers_reads_them(ours: ModelConfig, directory: Path) -> None:
    """What most of these call otherwise. Their logits are compared in tests/backends/reference/test_interpret.py."""
    pytest.importorskip("transformers")
    from transformers_models import transformers

    theirs = transformers.AutoConfig.from_pretrained(directory)

    def of(*names: str) -> Any:
        return next((value for name in names if (value := getattr(theirs, name, None)) is not None), None)

    assert (ours.num_layers, ours.num_heads) == (theirs.num_hidden_layers, theirs.num_attention_heads)
    assert (ours.vocab_size, ours.hidden_size) == (theirs.vocab_size, theirs.hidden_size)
    width = of("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner") or 4 * theirs.hidden_size
    # BLOOM's class knows no end of its contexts
    assert (ours.intermediate_size, ours.max_position_embeddings) == (width, of("max_position_embeddings") or 2048)
    assert ours.rms_norm_eps == (of("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon") or 1e-5)
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    act = of("hidden_act", "activation_function", "activation")
    known = {"gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu": "gelu", "relu": "relu", None: "gelu_tanh"}
    assert ours.hidden_act == known[act]
    rope = of("rope_parameters")
    if rope:
        wanted = (rope["rope_theta"], rope.get("partial_rotary_factor", 1.0))
        assert (ours.rope.theta, ours.rope.partial_rotary_factor) == wanted


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before=False is not supported"),
        ("opt", {"word_embed_proj_dim": 32}, "word_embed_proj_dim=32 is not supported; supported: that of hidden_size"),
        (
            "bloom",
            {"apply_residual_connection_post_layernorm": True},
            "'apply_residual_connection_post_layernorm': True",
        ),
        ("mpt", {"attn_config": {"clip_qkv": 0}}, "clip_qkv=0 must be a number from"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "attn_config: .* 'qk_ln': True"),
        ("mpt", {"attn_config": {"alibi": False}}, "attn_config: .* 'alibi': False"),
        ("mpt", {"attn_config": {"attn_type": "multiquery_attention"}}, "'attn_type': 'multiquery_attention'"),
        ("mpt", {"logit_scale": "inv_sqrt_d_model"}, "'logit_scale': 'inv_sqrt_d_model'"),
        ("mpt", {"no_bias": False}, "'no_bias': False"),
        ("falcon", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn=2 is not supported"),
        ("phi", {"qk_layernorm": True}, "'qk_layernorm': True"),
        ("gpt_bigcode", {"scale_attn_by_inverse_layer_idx": True}, "'scale_attn_by_inverse_layer_idx': True"),
        ("gpt2", {"activation_function": "silu"}, "activation_function='silu' is not supported; supported: gelu, "),
        ("gpt2", {"rope_theta": 10000.0}, "'rope_theta': 10000.0"),
        ("gpt_neox", {"rotary_pct": 0.3}, "rotary_pct=0.3 must rotate pairs of 12"),
        ("cohere2", {"sliding_window": None}, "sliding_window=None is not supported"),
        ("cohere2", {"use_parallel_block": False}, "'use_parallel_block': False"),
        ("olmo", {"clip_qkv": 0}, "clip_qkv=0 must be a number from"),
        ("codegen", {"n_head": 6}, "n_head=6 must be a multiple of 4"),
        ("gpt_neo", {"attention_types": [[["global"], 1]]}, "attention_types=.* must say what each of 2 layers is"),
        ("gpt_neo", {"attention_types": [[["global", "far"], 1]]}, "must say global or local of a layer"),
    ],
)
def test_what_models_with_a_layer_norm_do_not_compute(model_type: str, changes: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny(model_type, **changes)


def assert_latents_are_as_transformers_reads_them(ours: ModelConfig, theirs: Any) -> None:
    rope, widths = theirs.rope_parameters, (theirs.kv_lora_rank, theirs.qk_rope_head_dim)
    assert (ours.num_layers, ours.num_heads) == (theirs.num_hidden_layers, theirs.num_attention_heads)
    assert ours.num_kv_heads == 1
    assert (ours.vocab_size, ours.hidden_size) == (theirs.vocab_size, theirs.hidden_size)
    assert (ours.intermediate_size, ours.rms_norm_eps) == (theirs.intermediate_size, theirs.rms_norm_eps)
    assert (ours.tie_word_embeddings, ours.attention_bias) == (theirs.tie_word_embeddings, theirs.attention_bias)
    assert ours.head_dim == sum(widths)
    assert ours.blocks.latent == Latent(*widths, theirs.qk_nope_head_dim, theirs.v_head_dim, theirs.q_lora_rank)
    index = ours.blocks.index
    assert (index is not None) == hasattr(theirs, "index_topk")
    if index is not None:
        wanted = (theirs.index_n_heads, theirs.index_head_dim, theirs.index_topk)
        assert (index.num_heads, index.head_dim, index.count) == wanted
        kinds = getattr(theirs, "indexer_types", ["full"] * theirs.num_hidden_layers)
        assert [*index.own] == [kind == "full" for kind in kinds]
    assert (ours.rope.theta, ours.rope.rope_type) == (rope["rope_theta"], rope["rope_type"])
    growth = 1.0
    if rope["rope_type"] == "yarn":
        growth += 0.1 * rope["mscale_all_dim"] * np.log(rope["factor"])
    assert np.isclose(ours.scale, (theirs.qk_nope_head_dim + theirs.qk_rope_head_dim) ** -0.5 * growth**2, rtol=1e-12)
    experts, is_v2 = ours.experts, theirs.model_type == "deepseek_v2"
    assert experts is not None
    assert (experts.count, experts.top_k) == (theirs.n_routed_experts, theirs.num_experts_per_tok)
    assert (experts.width, experts.factor) == (theirs.moe_intermediate_size, theirs.routed_scaling_factor)
    assert experts.shared_width == theirs.moe_intermediate_size * theirs.n_shared_experts
    assert (experts.scores, experts.has_bias) == (("softmax", False) if is_v2 else ("sigmoid", True))
    assert experts.layers.index(True) == theirs.first_k_dense_replace
    is_grouped = theirs.n_group > theirs.topk_group
    assert experts.groups == ((theirs.n_group, theirs.topk_group, 1 if is_v2 else 2) if is_grouped else None)


def assert_v4_is_as_transformers_reads_it(ours: ModelConfig, theirs: Any) -> None:
    pooled, hyper, experts = ours.blocks.pooled, ours.blocks.hyper, ours.experts
    assert pooled is not None and hyper is not None and experts is not None
    assert (ours.num_layers, ours.num_heads) == (theirs.num_hidden_layers, theirs.num_attention_heads)
    assert (ours.num_kv_heads, ours.head_dim) == (theirs.num_key_value_heads, theirs.head_dim)
    assert (ours.vocab_size, ours.hidden_size) == (theirs.vocab_size, theirs.hidden_size)
    assert (ours.rms_norm_eps, ours.scale) == (theirs.rms_norm_eps, theirs.head_dim**-0.5)
    assert ours.max_position_embeddings == theirs.max_position_embeddings
    assert set(ours.windows) == {theirs.sliding_window}
    rates = {**theirs.compress_rates, "sliding_attention": 0}
    assert pooled.every == tuple(rates[kind] for kind in theirs.layer_types)
    assert pooled.overlaps == tuple(kind == "compressed_sparse_attention" for kind in theirs.layer_types)
    wanted = (theirs.index_n_heads, theirs.index_head_dim, theirs.index_topk)
    assert (pooled.index_heads, pooled.index_dim, pooled.count) == wanted
    wanted = (theirs.qk_rope_head_dim, theirs.q_lora_rank, theirs.o_groups, theirs.o_lora_rank)
    assert (pooled.rotary, pooled.query_rank, pooled.groups, pooled.out_rank) == wanted
    for rope, name in zip(pooled.ropes, ("main", "compress"), strict=True):
        said = theirs.rope_parameters[name]
        assert (rope.rope_type, rope.theta) == (said["rope_type"], said["rope_theta"])
        assert (rope.factor, rope.attention_factor) == (said.get("factor", 1.0), said.get("attention_factor"))
        assert rope.partial_rotary_factor == said["partial_rotary_factor"]
    assert (hyper.count, hyper.rounds, hyper.least) == (theirs.hc_mult, theirs.hc_sinkhorn_iters, theirs.hc_eps)
    assert (experts.count, experts.top_k) == (theirs.n_routed_experts, theirs.num_experts_per_tok)
    assert (experts.width, experts.factor) == (theirs.moe_intermediate_size, theirs.routed_scaling_factor)
    assert (experts.limit, experts.shared_limit) == (theirs.swiglu_limit,) * 2
    assert (experts.scores, theirs.scoring_func) == ("root_softplus", "sqrtsoftplus")
    assert experts.by_token == tuple(kind == "hash_moe" for kind in theirs.mlp_layer_types)


def assert_mixers_are_as_transformers_reads_them(ours: ModelConfig, theirs: Any) -> None:
    """Nemotron H, whose layers are one thing each."""
    words = {"state": "linear_attention", "attention": "full_attention", "ffn": "mlp", "experts": "moe"}
    assert [words[mixer] for mixer in ours.blocks.mixers] == theirs.layer_types
    assert (ours.vocab_size, ours.hidden_size) == (theirs.vocab_size, theirs.hidden_size)
    assert (ours.num_heads, ours.num_kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads)
    assert (ours.head_dim, ours.intermediate_size) == (theirs.head_dim, theirs.intermediate_size)
    assert (ours.rms_norm_eps, ours.hidden_act) == (theirs.layer_norm_epsilon, theirs.mlp_hidden_act)
    mamba, experts = ours.recurrent, ours.experts
    assert isinstance(mamba, MambaSettings)
    assert (mamba.heads, mamba.head_dim) == (theirs.mamba_num_heads, theirs.mamba_head_dim)
    assert (mamba.groups, mamba.state_size) == (theirs.n_groups, theirs.ssm_state_size)
    assert (mamba.conv_width, mamba.has_conv_bias) == (theirs.conv_kernel, theirs.use_conv_bias)
    assert (mamba.has_bias, mamba.dt_limits) == (theirs.use_bias, tuple(theirs.time_step_limit))
    assert (experts is not None) == ("moe" in theirs.layer_types)
    if experts is not None:
        wanted = (theirs.n_routed_experts, theirs.num_experts_per_tok, theirs.moe_intermediate_size)
        assert (experts.count, experts.top_k, experts.width) == wanted
        wanted = (theirs.moe_shared_expert_intermediate_size, theirs.moe_latent_size or 0)
        assert (experts.shared_width, experts.latent) == wanted
        assert (experts.factor, experts.renormalize) == (theirs.routed_scaling_factor, theirs.norm_topk_prob)
        assert experts.groups is None and theirs.n_group == theirs.topk_group == 1


def assert_llama4_is_as_transformers_reads_it(ours: ModelConfig, theirs: Any) -> None:
    assert (ours.num_layers, ours.num_heads) == (theirs.num_hidden_layers, theirs.num_attention_heads)
    assert (ours.num_kv_heads, ours.head_dim) == (theirs.num_key_value_heads, theirs.head_dim)
    assert (ours.vocab_size, ours.hidden_size) == (theirs.vocab_size, theirs.hidden_size)
    assert (ours.intermediate_size, ours.rms_norm_eps) == (theirs.intermediate_size_mlp, theirs.rms_norm_eps)
    assert ours.rotates == tuple(map(bool, theirs.no_rope_layers))
    assert ours.blocks.has_qk_norm == theirs.use_qk_norm
    kinds = {"chunked_attention": theirs.attention_chunk_size, "full_attention": None}
    assert ours.windows == tuple(kinds[kind] for kind in theirs.layer_types) and ours.blocks.sees_chunks
    assert ours.blocks.still_growth == (theirs.attn_scale if theirs.attn_temperature_tuning else 0)
    assert ours.blocks.still_period == theirs.floor_scale
    assert (ours.rope.theta, ours.rope.rope_type) == tuple(map(theirs.rope_parameters.get, ("rope_theta", "rope_type")))
    experts = ours.experts
    assert experts is not None and experts.top_k == theirs.num_experts_per_tok
    assert (experts.count, experts.width, experts.shared_width) == (
        theirs.num_local_experts,
        theirs.intermediate_size,
        theirs.intermediate_size,
    )
    assert [layer for layer, has_experts in enumerate(experts.layers) if has_experts] == theirs.moe_layers


def assert_as_transformers_reads_it(directory: Path) -> None:
    ours = load_config(directory, "float32")  # where the file names none
    if ours.model_type in LAYER_NORMS:
        assert_layer_norms_are_as_transformers_reads_them(ours, directory)
        return
    pytest.importorskip("transformers")
    from transformers_models import transformers

    whole = transformers.AutoConfig.from_pretrained(directory)
    theirs = whole.get_text_config()
    if ours.model_type == "llama4_text":
        assert_llama4_is_as_transformers_reads_it(ours, theirs)
        return
    if ours.blocks.latent is not None:
        assert_latents_are_as_transformers_reads_them(ours, theirs)
        return
    if ours.blocks.pooled is not None:
        assert_v4_is_as_transformers_reads_it(ours, theirs)
        return
    if ours.blocks.mixers:
        assert_mixers_are_as_transformers_reads_them(ours, theirs)
        return
    if theirs is not whole:  # of a model that reads images
        theirs.tie_word_embeddings = whole.tie_word_embeddings
        theirs.model_type = ours.model_type
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    kinds = getattr(theirs, "layer_types", None)
    if kinds is None:
        kinds = ["sliding_attention"] * theirs.num_hidden_layers
    window = getattr(theirs, "sliding_window", None)
    eos = theirs.eos_token_id
    assert ours == ModelConfig(
        model_type=theirs.model_type,
        vocab_size=theirs.vocab_size,
        hidden_size=theirs.hidden_size,
        # where every layer has experts, the width of nothing
        intermediate_size=getattr(theirs, "intermediate_size", theirs.hidden_size),
        num_layers=theirs.num_hidden_layers,
        num_heads=theirs.num_attention_heads,
        num_kv_heads=theirs.num_key_value_heads * (2 if ours.model_type == "mimo_v2_flash" else 1),
        head_dim=head_dim,
        max_position_embeddings=theirs.max_position_embeddings,
        rms_norm_eps=theirs.rms_norm_eps,
        tie_word_embeddings=theirs.tie_word_embeddings,
        dtype="float32" if theirs.dtype is None else str(theirs.dtype).removeprefix("torch."),
        rope=ours.rope,
        local_rope=ours.local_rope,
        hidden_act=ours.hidden_act,
        multipliers=ours.multipliers,
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        attention_bias=getattr(theirs, "attention_bias", False),
        mlp_bias=getattr(theirs, "mlp_bias", False),
        rotates=ours.rotates,
        bos_token_id=theirs.bos_token_id,
        eos_token_ids=() if eos is None else tuple(eos if isinstance(eos, list) else [eos]),
        experts=_experts(theirs),
        blocks=ours.blocks,
        recurrent=_recurrent(theirs),
    )
    of_rope = theirs.rope_parameters
    for mine, name in ((ours.rope, "full_attention"), (ours.local_rope, "sliding_attention")):
        if mine is not None:
            wanted = of_rope.get(name, of_rope)
            assert (mine.theta, mine.rope_type) == (wanted["rope_theta"], wanted["rope_type"])
            assert mine.partial_rotary_factor == wanted.get("partial_rotary_factor", 1.0)
    # old files of Gemma say gelu and mean the other
    known = {"silu": ("silu",), "gelu_tanh": ("gelu_pytorch_tanh", "gelu"), "clamped_swiglu": ("silu",)}
    assert (getattr(theirs, "hidden_activation", None) or theirs.hidden_act) in known[ours.hidden_act]
    for name, mine in (
        ("attn_logit_softcapping", ours.multipliers.attention_cap),
        ("final_logit_softcapping", ours.multipliers.logits_cap),
    ):
        assert getattr(theirs, name, None) == mine
    assert ours.scale == getattr(theirs, "query_pre_attn_scalar", head_dim) ** -0.5


def _recurrent(theirs: Any) -> RecurrentSettings | None:
    if not hasattr(theirs, "linear_num_key_heads"):
        return None
    heads = theirs.linear_num_key_heads, theirs.linear_num_value_heads
    dims = theirs.linear_key_head_dim, theirs.linear_value_head_dim
    layers = tuple(kind == "linear_attention" for kind in theirs.layer_types)
    return GatedDeltaSettings(
        layers, *heads, *dims, theirs.linear_conv_kernel_dim, lies_by_head=theirs.model_type == "qwen3_next"
    )


def _experts(theirs: Any) -> ExpertSettings | None:
    count = getattr(theirs, "num_local_experts", None) or getattr(theirs, "num_experts", None)
    if not count:
        return None
    layers = range(theirs.num_hidden_layers)
    step, dense = getattr(theirs, "decoder_sparse_step", 1), getattr(theirs, "mlp_only_layers", [])
    if theirs.model_type == "mimo_v2_flash":
        assert theirs.n_group == theirs.topk_group == theirs.routed_scaling_factor == 1
        dense = [layer for layer in layers if theirs.mlp_layer_types[layer] == "dense"]
    return ExpertSettings(
        count=count,
        top_k=theirs.num_experts_per_tok,
        width=getattr(theirs, "moe_intermediate_size", None) or theirs.intermediate_size,
        renormalize=getattr(theirs, "norm_topk_prob", True),
        shared_width=getattr(theirs, "shared_expert_intermediate_size", 0),
        layers=tuple(i not in dense and (i + 1) % step == 0 for i in layers),
        **({"scores": "sigmoid", "has_bias": True} if theirs.model_type in ("minimax_m2", "mimo_v2_flash") else {}),
        **({"is_shared_gated": False} if theirs.model_type == "mimo_v2_flash" else {}),
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mixtral", {"num_local_experts": ...}, "num_local_experts is missing"),
        ("mixtral", {"num_experts_per_tok": 6}, "num_experts_per_tok=6 must be a whole number from 1 to 5"),
        ("qwen3_moe", {"num_experts": 100, "num_experts_per_tok": 65}, "num_experts_per_tok=65 must be .* 1 to 64"),
        ("qwen3_moe", {"moe_intermediate_size": ...}, "moe_intermediate_size is missing"),
        ("qwen3_moe", {"mlp_only_layers": [3]}, "mlp_only_layers=.* must be a list of layers, from 0 to 2"),
        ("qwen3_moe", {"mlp_only_layers": [0, 1, 2]}, "no layer has experts"),
        ("qwen3_moe", {"use_qk_norm": False, "qk_norm_type": "l2"}, "'use_qk_norm': False, 'qk_norm_type'"),
        ("qwen3_moe", {"shared_expert_intermediate_size": 64}, "'shared_expert_intermediate_size': 64"),
        ("qwen2_moe", {"shared_expert_intermediate_size": ...}, "shared_expert_intermediate_size is missing"),
        ("qwen2_moe", {"qkv_bias": False}, "'qkv_bias': False"),
        ("qwen2_moe", {"use_sliding_window": True}, "layer_types must say in which layers"),
        ("llama", {"num_local_experts": 8}, "'num_local_experts': 8"),
        ("glm4_moe", {"n_routed_experts": ...}, "n_routed_experts is missing"),
        ("deepseek_v3", {"qk_rope_head_dim": 7}, "qk_rope_head_dim=7 must be even"),
        ("deepseek_v3", {"kv_lora_rank": 0}, "kv_lora_rank=0 must be a whole number from 2 to"),
        ("deepseek_v3", {"rope_interleave": False}, "'rope_interleave': False"),
        ("deepseek_v2", {"norm_topk_prob": True}, "'norm_topk_prob': True"),
        ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method='noaux_tc' is not supported"),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense"] * 3}, "no layer has experts"),
        ("glm4_moe_lite", {"mlp_layer_types": ["sparse"]}, 'must be "dense" or "sparse" for each of 3 layers'),
        ("glm4_moe_lite", {"mlp_layer_types": ["sparse", ["sparse"], {}]}, 'must be "dense" or "sparse" for each'),
        ("youtu", {"v_head_dim": 2**13}, "v_head_dim=8192 must be a whole number from 1 to 4096"),
        ("glm4_moe", {"first_k_dense_replace": 3}, "first_k_dense_replace=3 must be a whole number from 0 to 2"),
        ("glm4_moe", {"n_group": 5}, "n_group=5 must divide 12 experts into groups of 2 or more"),
        ("glm4_moe", {"n_group": 12}, "n_group=12 must divide 12 experts into groups of 2 or more"),
        ("glm4_moe", {"n_group": 6, "topk_group": 1}, "topk_group=1 leaves fewer than the 3 experts"),
        ("glm4_moe", {"topk_group": 5}, "topk_group=5 must be a whole number from 1 to 4"),
        ("glm4_moe", {"scoring_func": "softmax"}, "'scoring_func': 'softmax'"),
        ("glm4_moe", {"routed_scaling_factor": 0}, "routed_scaling_factor=0 must be a number from"),
        ("minimax_m2", {"attn_type_list": [1, 0]}, "attn_type_list=.* is not supported"),
        ("minimax_m2", {"rotary_dim": 18}, "rotary_dim=18 must be a whole number from 2 to 16"),
        ("minimax_m2", {"use_routing_bias": False}, "'use_routing_bias': False"),
        ("minimax_m2", {"shared_intermediate_size": 8}, "'shared_intermediate_size': 8"),
        ("ernie4_5_moe", {"moe_layer_start_index": 4, "moe_layer_end_index": -1}, "no layer has experts"),
        ("ernie4_5_moe", {"moe_norm_min": 1e-3}, "'moe_norm_min': 0.001"),
        ("ernie4_5_moe", {"use_bias": True}, "'use_bias': True"),
        ("dbrx", {"ffn_config": {"moe_normalize_expert_weights": 2.0}}, "'moe_normalize_expert_weights': 2.0"),
        ("dbrx", {"ffn_config": {"ffn_act_fn": {"name": "gelu"}}}, "'ffn_act_fn': "),
        ("dbrx", {"attn_config": {"qk_ln": True}}, "'qk_ln': True"),
        ("dbrx", {"attn_config": 3}, "attn_config=3 must be"),
        ("mellum", {"mlp_layer_types": ["dense"] * 3}, "no layer has experts"),
        ("mellum", {"rope_parameters": ...}, "rope_parameters=None must say how full_attention"),
        ("cwm", {"layer_types": ...}, "layer_types=None must say which layers have a window"),
        ("cwm", {"rope_scaling": ...}, "rope_scaling=None must say how the rotation is scaled"),
        ("phimoe", {"num_experts_per_tok": 1}, "num_experts_per_tok=1 is not supported"),
        ("phimoe", {"router_jitter_noise": 0}, "router_jitter_noise=0 must be a number from"),
        ("dots1", {"topk_method": "greedy"}, "'topk_method': 'greedy'"),
        ("hunyuan_v1_moe", {"moe_topk": [2, 1]}, r"moe_topk=\[2, 1\] is not supported; the same in every layer"),
        ("hunyuan_v1_moe", {"num_shared_expert": [2, 2]}, r"num_shared_expert=\[2, 2\] is not supported; supported: 1"),
        ("hunyuan_v1_moe", {"moe_topk": 6}, "moe_topk=6 must be from 1 to 5"),
        ("mistral4", {"n_group": 4, "topk_group": 2}, "n_group=4 is not supported"),
        ("llama4_text", {"num_experts_per_tok": 2}, "num_experts_per_tok=2 is not supported"),
        ("llama4_text", {"moe_layers": []}, "no layer has experts"),
        ("glm_moe_dsa", {"layer_types": ["sliding_attention"] * 2}, "layer_types=.* is not supported"),
    ],
)
def test_experts_that_are_not_computed_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_tiny(name, **changes)


def test_experts_may_be_counted_under_either_name_and_written_by_transformers() -> None:
    written = {"num_experts": ..., "num_local_experts": 11, "use_qk_norm": True, "sliding_window": 4096}
    assert parse_tiny("qwen3_moe", **written) == parse_tiny("qwen3_moe")
    kinds = ["full_attention"] * 4
    assert parse_tiny("qwen2_moe", sliding_window=0, layer_types=kinds, qkv_bias=True) == parse_tiny("qwen2_moe")
    assert parse_tiny("qwen3_moe", use_sliding_window=True, sliding_window=9).windows == (9, 9, 9)


def test_keys_in_tables_are_read_as_if_they_lay_beside_them() -> None:
    attention = {"clip_qkv": 8, "kv_n_heads": 1, "rope_theta": 500000}
    config = parse_tiny("dbrx", rope_theta=..., attn_config=attention)
    assert (config.multipliers.qkv_limit, config.num_kv_heads, config.rope.theta) == (8, 1, 500000)
    # as transformers writes it: what lies beside them goes before
    assert parse_tiny("dbrx", rope_theta=1e4, attn_config=attention).rope.theta == 1e4


def test_tiny_configs_differ_where_code_could_confuse_things() -> None:
    configs = [parse_tiny(name) for name in architectures()]
    assert any(c.head_dim * c.num_heads != c.hidden_size for c in configs)
    assert any(c.num_kv_heads == 1 < c.num_heads for c in configs)
    assert {c.tie_word_embeddings for c in configs} == {True, False}
    assert any(c.attention_bias and c.mlp_bias for c in configs)
    assert any(None in c.windows and any(c.windows) for c in configs)


def test_how_experts_of_deepseek_v2_are_chosen() -> None:
    """Greedy, which an absent key means, knows no groups."""
    grouped, absent, said = (
        parse_tiny("deepseek_v2", **changes).experts
        for changes in ({}, {"topk_method": ...}, {"topk_method": "greedy"})
    )
    assert grouped is not None and grouped.groups == (4, 2, 1)
    assert absent == said == replace(grouped, groups=None)


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
def test_dtype_under_both_names(key: str, name: str) -> None:
    assert parse_tiny("llama", **{"torch_dtype": ..., key: name}).dtype == name
    assert parse_tiny("llama", **{"torch_dtype": None, key: name}).with_dtype("auto").dtype == name
    assert parse_tiny("llama", **{"torch_dtype": ..., key: name}).with_dtype("bf16").dtype == "bfloat16"


def test_unknown_dtype_of_the_user_is_his_error() -> None:
    with pytest.raises(ConfigError, match="int4"):
        parse_tiny("llama").with_dtype("int4")


def test_dtype_is_the_checkpoints_when_the_config_names_none(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, load_architecture("llama").tiny, dtype="bfloat16")
    data = json.loads((tmp_path / "config.json").read_text())
    del data["torch_dtype"]
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert load_config(tmp_path).dtype == "bfloat16"


def test_rope_under_both_forms() -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    old = parse_tiny("llama", rope_theta=777.0, rope_scaling=scaling)
    new = parse_tiny("llama", rope_theta=..., rope_scaling=..., rope_parameters=scaling | {"rope_theta": 777.0})
    assert old == new and old.rope.theta == 777.0 and old.rope.factor == 2.0


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, (None, 9, 9)),
        ({"use_sliding_window": False}, (None,) * 3),
        ({"use_sliding_window": ...}, (None,) * 3),
        ({"max_window_layers": 0}, (9, 9, 9)),
        ({"max_window_layers": ...}, (None,) * 3),
        ({"max_window_layers": 3}, (None,) * 3),
        ({"sliding_window": None}, (None,) * 3),
        ({"sliding_window": ...}, (None, 4096, 4096)),
        ({"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, (9, None, 9)),
        ({"layer_types": ["full_attention"] * 3}, (None,) * 3),
        ({"use_sliding_window": False, "layer_types": ["full_attention"] * 3}, (None,) * 3),
    ],
)
def test_windows_are_those_of_transformers(changes: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    assert parse_tiny("qwen2", **changes).windows == windows
    transformers = pytest.importorskip("transformers")
    data = {k: v for k, v in {**load_architecture("qwen2").tiny, **changes}.items() if v is not ...}
    theirs = transformers.Qwen2Config(**data)
    kinds = theirs.layer_types
    assert windows == tuple(theirs.sliding_window if kind == "sliding_attention" else None for kind in kinds)


@pytest.mark.parametrize(("value", "window"), [(5, 5), (None, None), (..., 4096)])
def test_mistral_windows(value: Any, window: int | None) -> None:
    assert parse_tiny("mistral", sliding_window=value).windows == (window, window)


def test_qwen3_heads_are_128_wide_unless_said() -> None:
    assert parse_tiny("qwen3", head_dim=...).head_dim == 128


def assert_layers_of_two_kinds_are_as_transformers_reads_them(directory: Path) -> None:
    """What Gemma 4 has a number of for each kind of layer; transformers has none of all layers then."""
    pytest.importorskip("transformers")
    from transformers_models import transformers

    ours, theirs = load_config(directory), transformers.AutoConfig.from_pretrained(directory).text_config
    layers = [theirs.per_layer_config[i] for i in range(theirs.num_hidden_layers)]
    assert list(ours.kv_shapes) == [(each.num_key_value_heads, each.head_dim) for each in layers]
    assert [window is None for window in ours.windows] == [kind == "full_attention" for kind in theirs.layer_types]
    assert ours.blocks.full_values_are_keys == theirs.attention_k_eq_v is True
    assert (ours.experts is not None) == theirs.enable_moe_block
    if ours.experts is not None:
        wanted = (theirs.num_experts, theirs.top_k_experts, theirs.moe_intermediate_size)
        assert (ours.experts.count, ours.experts.top_k, ours.experts.width) == wanted
        assert ours.experts.has_gain and ours.experts.renormalize and all(ours.experts.layers)
    rope = theirs.rope_parameters["full_attention"]
    assert (ours.rope.theta, ours.rope.turning_part) == (rope["rope_theta"], rope["partial_rotary_factor"])


@pytest.mark.parametrize(
    ("changes", "windows", "grows"),
    [
        ({"attention_chunk_size": 60}, (60, None), True),
        ({"attention_chunk_size": None}, (None, None), True),
        ({"attn_temperature_tuning": False}, (20, None), False),
        ({"attn_temperature_tuning": 4}, (20, None), True),
        ({"attn_temperature_tuning": 0}, (20, None), False),
        ({"no_rope_layers": [0, 1]}, (None, 20), True),
        ({"layer_types": ["chunked_attention"] * 2}, (20, 20), True),
    ],
)
def test_which_layers_of_llama4_see_chunks(
    changes: dict[str, Any], windows: tuple[int | None, ...], grows: bool
) -> None:
    config = parse_tiny("llama4_text", **changes)
    assert config.windows == windows
    for length, expected in ((512, grows), (15, False)):  # queries of no position of a short text are longer
        ropes = [node.attrs["rope"] for node in build_graph(config, length).nodes if node.op == "rope"]
        assert [rope.growth is not None for rope in ropes].count(True) == expected
    seen = [node.attrs.get("in_chunks", False) for node in build_graph(config, 512).nodes if node.op == "attention"]
    assert seen == [window is not None for window in windows]


def test_chunks_of_no_length_are_refused() -> None:
    with pytest.raises(ModelError, match="names chunked_attention but attention_chunk_size says of no chunks"):
        parse_tiny("llama4_text", attention_chunk_size=None, layer_types=["chunked_attention"] * 2)


def test_the_base_of_hunyuans_rotation() -> None:
    """transformers' own numbers are compared in tests/backends/reference/test_interpret.py."""
    assert parse_tiny("hunyuan_v1_dense").rope.theta == 10000.0 * 50.0 ** (16 / 14)
    same = parse_tiny("hunyuan_v1_dense", head_dim=..., attention_head_dim=16)
    assert same == parse_tiny("hunyuan_v1_dense")
    scaling = {"rope_type": "dynamic", "factor": 2.0, "alpha": None}
    assert parse_tiny("hunyuan_v1_dense", rope_scaling=scaling).rope.rope_type == "dynamic"
