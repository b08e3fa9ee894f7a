"""What llama.cpp calls an architecture, and what its GGUF files hold: the names of tensors, the settings, and what
converters did that is put back.

Read by names.py, config.py and weights.py. Sources: gguf/constants.py, gguf/tensor_mapping.py and conversion/*.py of
llama.cpp; what its graphs (src/models/*.cpp) know and no file says is in the files of settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf import (
    gemma4_settings,
    hybrid_settings,
    mixture_settings,
    own_settings,
    plain_settings,
    put_back,
)
from albireo.models.gguf.put_back import PutBack
from albireo.models.gguf.stored import Stored

#: Keys to add to a config. Args: fields: of the architecture; config: what all have.
Settings = Callable[[Fields, Stored, Mapping[str, Any]], dict[str, Any]]
Names = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """An architecture by its name in general.architecture.

    Fields:
        model_type: whose graph computes it, where settings do not say another.
        settings: reads what only some architectures have.
        names: what a graph calls a tensor of a layer, behind the layer's number, where not as llama does. A key may end
            with .weight or .bias, for one that a graph calls by a name without. {} is the number of an expert, "+"
            stands between the two matrices that one tensor of all experts holds of each.
        ends: the same of tensors outside of layers. layer: what names of layers begin with.
        where: other names of files that have a certain tensor.
        put_back: what converters did to tensors, undone.
        keys: what its config.json calls keys, where not as llama's.
        is_layer_norm: which key says eps. has_biases: config.json says whether there are biases, which a file shows.
        is_latent: a head's width is told in parts. is_by_layer: settings read widths and heads, layer by layer.
    """

    model_type: str
    settings: Settings = lambda fields, file, config: {}
    names: Names = field(default_factory=dict)
    ends: Names = field(default_factory=dict)
    layer: str = "model.layers"
    where: tuple[str, Names] = ("", {})
    put_back: tuple[PutBack, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    is_layer_norm: bool = False
    has_biases: bool = False
    is_latent: bool = False
    is_by_layer: bool = False

    @property
    def all_ends(self) -> Names:
        return {**_ENDS, **self.ends}

    def names_in(self, tensors: Iterable[str]) -> Names:
        """Of layers. Args: tensors: of the file."""
        tensor, names = self.where
        return {**_LAYER, **self.names, **(names if tensor and tensor in tensors else {})}


_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_sinks.weight": "self_attn.sinks",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_gate_up_exps": "mlp.experts.{}.gate_proj+up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}


def _experts(block: str, router: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> Names:
    """Args: block: what experts lie in. gate, up, down: matrices of one."""
    one = f"{block}.experts.{{}}"
    names = {"ffn_gate_inp": f"{block}.{router}", "ffn_gate_up_exps": f"{one}.{gate}+{up}"}
    return names | {"ffn_gate_exps": f"{one}.{gate}", "ffn_up_exps": f"{one}.{up}", "ffn_down_exps": f"{one}.{down}"}


def _mamba(module: str) -> Names:
    parts = {"ssm_in": "in_proj", "ssm_conv1d": "conv1d", "ssm_norm": "norm", "ssm_out": "out_proj"}
    parts |= {"ssm_a": "A_log", "ssm_d": "D", "ssm_dt.bias": "dt_bias"}
    return {name: f"{module}.{part}" for name, part in parts.items()}


_POST_NORMS = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
_NORM_BEHIND = {"post_attention_norm": "post_attention_layernorm"}
_GEMMA = {**_POST_NORMS, "ffn_norm": "pre_feedforward_layernorm"}
_GEMMA4 = {
    **_GEMMA,
    "layer_output_scale.weight": "layer_scalar",
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "post_ffw_norm_2": "post_feedforward_layernorm_2",
    "ffn_gate_inp": "router.proj",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_exps": "experts.{}.gate_proj",
    "ffn_up_exps": "experts.{}.up_proj",
    "ffn_gate_up_exps": "experts.{}.gate_proj+up_proj",
    "ffn_down_exps": "experts.{}.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
}
_GEMMA4_ENDS = {
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
}
_MIXTRAL = _experts("block_sparse_moe", "gate", "w1", "w3", "w2")
_GRANITE_EXPERTS = _experts("block_sparse_moe", "router.layer")
_SHARED = {f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")}
_DEEPSEEK = {**_SHARED, "exp_probs_b.bias": "mlp.gate.e_score_correction_bias"}
_LATENT = {
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_k_b": "self_attn.k_up_proj",
    "attn_v_b": "self_attn.v_up_proj",
}
_GATED_DELTA = {
    **_NORM_BEHIND,
    **{name: each for name, each in _mamba("linear_attn").items() if name != "ssm_in"},
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_beta": "linear_attn.in_proj_b",
}
_SHORT_CONV = {
    "attn_norm": "operator_norm",
    "ffn_norm": "ffn_norm",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "shortconv.conv": "conv.conv",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
_SHORT_CONV_ENDS = {"token_embd_norm": "model.embedding_norm", "output_norm": "model.embedding_norm"}
_GRANITE_FFN = {"gate": "gate_proj", "up": "up_proj", "down": "output_linear"}
_GRANITE_HYBRID = {
    **_mamba("mamba"),
    **_GRANITE_EXPERTS,
    **{f"ffn_{part}{end}": f"shared_mlp.{module}" for part, module in _GRANITE_FFN.items() for end in ("", "_shexp")},
}
_NEMOTRON_H = {
    **_mamba("mixer"),
    **_experts("mixer", "gate"),
    "attn_norm": "norm",
    **{f"attn_{part}": f"mixer.{part}_proj" for part in "qkv"},
    "attn_output": "mixer.o_proj",
    "exp_probs_b.bias": "mixer.gate.e_score_correction_bias",
    "ffn_latent_down": "mixer.fc1_latent_proj",
    "ffn_latent_up": "mixer.fc2_latent_proj",
    **{f"ffn_{part}": f"mixer.{part}_proj" for part in ("up", "down")},
    **{f"ffn_{part}_shexp": f"mixer.shared_experts.{part}_proj" for part in ("up", "down")},
}
_NEMOTRON_H_ENDS = {"token_embd": "backbone.embeddings", "output_norm": "backbone.norm_f"}
_FALCON = {
    "attn_qkv": "self_attention.query_key_value",
    "attn_output": "self_attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
_GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GPT2_KEYS = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
}
_LAYER_NORM_EPS = {"rms_norm_eps": "layer_norm_eps"}
_NORM_EPS = {"rms_norm_eps": "norm_eps"}
_LAYER_NORM_EPSILON = {"rms_norm_eps": "layer_norm_epsilon"}
_GPT2_ENDS = {"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f"}
_GPTNEOX_ENDS = {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out"}

#: general.architecture -> what it is. llama stands for Mistral too, and with experts for Mixtral; olmo2 with windows
#: for OLMo 3; deepseek2 for DeepSeek V2, V3, Kimi and what has their shape.
ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    "llama": GgufArchitecture("llama", mixture_settings.mixtral, _MIXTRAL, put_back=(put_back.pairs,), has_biases=True),
    "mistral3": GgufArchitecture("ministral3", own_settings.mistral3, put_back=(put_back.pairs,)),
    "qwen2": GgufArchitecture("qwen2", own_settings.without_windows),
    "qwen2moe": GgufArchitecture("qwen2_moe", mixture_settings.qwen2),
    "qwen3": GgufArchitecture("qwen3"),
    "qwen3moe": GgufArchitecture("qwen3_moe", mixture_settings.qwen3),
    "qwen3vl": GgufArchitecture("qwen3", own_settings.qwen3),
    "qwen3vlmoe": GgufArchitecture("qwen3_moe", mixture_settings.qwen3),
    "qwen3next": GgufArchitecture(
        "qwen3_5_moe_text",
        hybrid_settings.gated_delta,
        {**_GATED_DELTA, "ssm_in": "linear_attn.in_proj_qkvz", "ssm_ba": "linear_attn.in_proj_ba"},
        put_back=(put_back.decays, put_back.gates_by_head),
    ),
    "qwen35": GgufArchitecture(
        "qwen3_5_text", hybrid_settings.gated_delta, _GATED_DELTA, put_back=(put_back.value_heads,)
    ),
    "qwen35moe": GgufArchitecture(
        "qwen3_5_moe_text", hybrid_settings.gated_delta, _GATED_DELTA, put_back=(put_back.value_heads,)
    ),
    "phi3": GgufArchitecture(
        "phi3", own_settings.phi3, {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
    ),
    "gemma": GgufArchitecture("gemma"),
    "gemma2": GgufArchitecture("gemma2", own_settings.gemma2, _GEMMA),
    "gemma3": GgufArchitecture("gemma3_text", own_settings.gemma3, _GEMMA),
    "gemma4": GgufArchitecture("gemma4_text", gemma4_settings.gemma4, _GEMMA4, _GEMMA4_ENDS, is_by_layer=True),
    "granite": GgufArchitecture("granite", own_settings.granite, put_back=(put_back.pairs,), has_biases=True),
    "granitemoe": GgufArchitecture(
        "granitemoe", mixture_settings.granite, _GRANITE_EXPERTS, put_back=(put_back.pairs,), has_biases=True
    ),
    "granitehybrid": GgufArchitecture(
        "granitemoehybrid",
        hybrid_settings.granite,
        _GRANITE_HYBRID,
        put_back=(put_back.pairs, put_back.decays, put_back.shared_ffn),
        has_biases=True,
    ),
    "olmo2": GgufArchitecture("olmo2", own_settings.olmo, _POST_NORMS),
    "olmoe": GgufArchitecture("olmoe", mixture_settings.olmoe),
    "smollm3": GgufArchitecture("smollm3", own_settings.smollm3, put_back=(put_back.pairs,), has_biases=True),
    "gpt-oss": GgufArchitecture("gpt_oss", mixture_settings.gpt_oss, {**_NORM_BEHIND, "ffn_gate_inp": "mlp.router"}),
    "lfm2": GgufArchitecture("lfm2", hybrid_settings.short_conv, _SHORT_CONV, _SHORT_CONV_ENDS, keys=_NORM_EPS),
    "lfm2moe": GgufArchitecture(
        "lfm2_moe",
        hybrid_settings.short_conv,
        {
            **_SHORT_CONV,
            **_experts("feed_forward", "gate", "w1", "w3", "w2"),
            "exp_probs_b.bias": "feed_forward.expert_bias",
        },
        _SHORT_CONV_ENDS,
        keys=_NORM_EPS,
    ),
    "nemotron_h": GgufArchitecture(
        "nemotron_h",
        hybrid_settings.nemotron,
        _NEMOTRON_H,
        _NEMOTRON_H_ENDS,
        "backbone.layers",
        put_back=(put_back.decays,),
        keys=_LAYER_NORM_EPSILON,
    ),
    "nemotron_h_moe": GgufArchitecture(
        "nemotron_h",
        hybrid_settings.nemotron,
        _NEMOTRON_H,
        _NEMOTRON_H_ENDS,
        "backbone.layers",
        put_back=(put_back.decays,),
        keys=_LAYER_NORM_EPSILON,
    ),
    "deepseek2": GgufArchitecture(
        "deepseek_v3",
        mixture_settings.deepseek2,
        {**_DEEPSEEK, **_LATENT},
        put_back=(put_back.latent_projections,),
        is_latent=True,
    ),
    "glm4": GgufArchitecture(
        "glm4",
        own_settings.biases,
        {
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
            "ffn_up": "mlp.gate_up_proj",
        },
    ),
    "glm4moe": GgufArchitecture("glm4_moe", mixture_settings.glm4, {**_DEEPSEEK, **_NORM_BEHIND}),
    "dots1": GgufArchitecture("dots1", mixture_settings.dots1, _DEEPSEEK),
    "ernie4_5": GgufArchitecture("ernie4_5"),
    "ernie4_5-moe": GgufArchitecture(
        "ernie4_5_moe",
        mixture_settings.ernie,
        {**_SHARED, "exp_probs_b.bias": "mlp.moe_statics.e_score_correction_bias"},
    ),
    "minimax-m2": GgufArchitecture(
        "minimax_m2",
        mixture_settings.minimax,
        {**_MIXTRAL, "exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias"},
    ),
    "exaone4": GgufArchitecture("exaone4", own_settings.exaone, _POST_NORMS),
    "seed_oss": GgufArchitecture("seed_oss", own_settings.biases, _NORM_BEHIND),
    "starcoder2": GgufArchitecture(
        "starcoder2",
        plain_settings.starcoder2,
        {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        keys={"rms_norm_eps": "norm_epsilon"},
        is_layer_norm=True,
    ),
    "command-r": GgufArchitecture("cohere", plain_settings.cohere, keys=_LAYER_NORM_EPS, is_layer_norm=True),
    "falcon": GgufArchitecture(
        "falcon",
        plain_settings.falcon,
        {**_FALCON, "attn_norm": "input_layernorm"},
        {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f"},
        "transformer.h",
        ("blk.0.attn_norm_2.weight", {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}),
        (put_back.heads_by_group,),
        {**_LAYER_NORM_EPSILON, "intermediate_size": "ffn_hidden_size"},
        is_layer_norm=True,
    ),
    "stablelm": GgufArchitecture("stablelm", plain_settings.stablelm, keys=_LAYER_NORM_EPS, is_layer_norm=True),
    "gptneox": GgufArchitecture(
        "gpt_neox",
        plain_settings.gptneox,
        {
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        _GPTNEOX_ENDS,
        "gpt_neox.layers",
        put_back=(put_back.heads_by_group,),
        keys={**_LAYER_NORM_EPS, "partial_rotary_factor": "rotary_pct"},
        is_layer_norm=True,
    ),
    "gpt2": GgufArchitecture(
        "gpt2", plain_settings.gpt2, _GPT2, _GPT2_ENDS, "transformer.h", keys=_GPT2_KEYS, is_layer_norm=True
    ),
    "phi2": GgufArchitecture(
        "phi",
        plain_settings.phi2,
        {
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        },
        {"output_norm": "model.final_layernorm"},
        put_back=(put_back.apart,),
        keys=_LAYER_NORM_EPS,
        is_layer_norm=True,
    ),
}
