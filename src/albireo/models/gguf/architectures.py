"""What llama.cpp calls an architecture, and what its GGUF files hold: the names of tensors, the settings, and what
converters did that is put back.

Read by names.py and config.py. Sources: gguf/constants.py, gguf/tensor_mapping.py and conversion/*.py of llama.cpp;
what its graphs (src/models/*.cpp) know and no file says is in the files of settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf import (
    encoder_settings,
    gemma3n_settings,
    gemma4_settings,
    hybrid_settings,
    mixture_settings,
    name_maps,
    own_settings,
    plain_settings,
    put_back,
)
from albireo.models.gguf.name_maps import Names
from albireo.models.gguf.put_back import PutBack
from albireo.models.gguf.stored import Stored

#: Keys to add to a config. Args: fields: of the architecture; config: what all have.
Settings = Callable[[Fields, Stored, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """An architecture by its name in general.architecture.

    Fields:
        model_type: whose graph computes it, where settings do not say another.
        settings: reads what only some architectures have.
        names: what a graph calls a tensor of a layer, behind the layer's number, where not as llama does. A key may end
            with .weight or .bias, for one that a graph calls by a name without. {} is the number of an expert, or of
            another matrix of a stack, "+"
            stands between the two matrices that one tensor of all experts holds of each.
        ends: the same of tensors outside of layers. layer: what names of layers begin with.
        where: other names of files that have a certain tensor.
        put_back: what converters did to tensors, undone.
        keys: what its config.json calls keys, where not as llama's.
        is_layer_norm: which key says eps. has_biases: config.json says whether there are biases, which a file shows.
        is_latent: a head's width is told in parts. is_by_layer: settings read widths and heads, layer by layer.
        is_encoder: it embeds, and writes no text.
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
    is_encoder: bool = False

    @property
    def all_ends(self) -> Names:
        return {**name_maps.ENDS, **self.ends}

    def names_in(self, tensors: Iterable[str]) -> Names:
        """Of layers. Args: tensors: of the file."""
        tensor, names = self.where
        return {**name_maps.LAYER, **self.names, **(names if tensor and tensor in tensors else {})}


#: general.architecture -> what it is. llama stands for Mistral too, and with experts for Mixtral; InternLM 2
#: is llama once its projections lie apart; olmo2 with windows
#: for OLMo 3; deepseek2 for DeepSeek V2, V3, Kimi and what has their shape.
ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    "llama": GgufArchitecture(
        "llama", mixture_settings.mixtral, name_maps.MIXTRAL, put_back=(put_back.pairs,), has_biases=True
    ),
    "llama4": GgufArchitecture("llama4_text", mixture_settings.llama4, name_maps.LLAMA4, has_biases=True),
    "internlm2": GgufArchitecture("llama", put_back=(put_back.pairs,), has_biases=True),
    "minicpm": GgufArchitecture("minicpm", own_settings.minicpm, put_back=(put_back.pairs,), has_biases=True),
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
        {**name_maps.GATED_DELTA, "ssm_in": "linear_attn.in_proj_qkvz", "ssm_ba": "linear_attn.in_proj_ba"},
        put_back=(put_back.decays, put_back.gates_by_head),
    ),
    "qwen35": GgufArchitecture(
        "qwen3_5_text", hybrid_settings.gated_delta, name_maps.GATED_DELTA, put_back=(put_back.value_heads,)
    ),
    "qwen35moe": GgufArchitecture(
        "qwen3_5_moe_text", hybrid_settings.gated_delta, name_maps.GATED_DELTA, put_back=(put_back.value_heads,)
    ),
    "phi3": GgufArchitecture(
        "phi3", own_settings.phi3, {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
    ),
    "gemma": GgufArchitecture("gemma"),
    "gemma2": GgufArchitecture("gemma2", own_settings.gemma2, name_maps.GEMMA),
    "gemma3": GgufArchitecture("gemma3_text", own_settings.gemma3, name_maps.GEMMA),
    "gemma3n": GgufArchitecture("gemma3n_text", gemma3n_settings.gemma3n, name_maps.GEMMA3N, name_maps.GEMMA3N_ENDS),
    "gemma4": GgufArchitecture(
        "gemma4_text", gemma4_settings.gemma4, name_maps.GEMMA4, name_maps.GEMMA4_ENDS, is_by_layer=True
    ),
    "granite": GgufArchitecture("granite", own_settings.granite, put_back=(put_back.pairs,), has_biases=True),
    "granitemoe": GgufArchitecture(
        "granitemoe", mixture_settings.granite, name_maps.GRANITE_EXPERTS, put_back=(put_back.pairs,), has_biases=True
    ),
    "granitehybrid": GgufArchitecture(
        "granitemoehybrid",
        hybrid_settings.granite,
        name_maps.GRANITE_HYBRID,
        put_back=(put_back.pairs, put_back.decays, put_back.shared_ffn),
        has_biases=True,
    ),
    "olmo2": GgufArchitecture("olmo2", own_settings.olmo, name_maps.POST_NORMS),
    "olmoe": GgufArchitecture("olmoe", mixture_settings.olmoe),
    "smollm3": GgufArchitecture("smollm3", own_settings.smollm3, put_back=(put_back.pairs,), has_biases=True),
    "gpt-oss": GgufArchitecture(
        "gpt_oss", mixture_settings.gpt_oss, {**name_maps.NORM_BEHIND, "ffn_gate_inp": "mlp.router"}
    ),
    "lfm2": GgufArchitecture(
        "lfm2", hybrid_settings.short_conv, name_maps.SHORT_CONV, name_maps.SHORT_CONV_ENDS, keys=name_maps.NORM_EPS
    ),
    "lfm2moe": GgufArchitecture(
        "lfm2_moe",
        hybrid_settings.short_conv,
        {
            **name_maps.SHORT_CONV,
            **name_maps.experts_in("feed_forward", "gate", "w1", "w3", "w2"),
            "exp_probs_b.bias": "feed_forward.expert_bias",
        },
        name_maps.SHORT_CONV_ENDS,
        keys=name_maps.NORM_EPS,
    ),
    "nemotron_h": GgufArchitecture(
        "nemotron_h",
        hybrid_settings.nemotron,
        name_maps.NEMOTRON_H,
        name_maps.NEMOTRON_H_ENDS,
        "backbone.layers",
        put_back=(put_back.decays,),
        keys=name_maps.LAYER_NORM_EPSILON,
    ),
    "nemotron_h_moe": GgufArchitecture(
        "nemotron_h",
        hybrid_settings.nemotron,
        name_maps.NEMOTRON_H,
        name_maps.NEMOTRON_H_ENDS,
        "backbone.layers",
        put_back=(put_back.decays,),
        keys=name_maps.LAYER_NORM_EPSILON,
    ),
    "falcon-h1": GgufArchitecture(
        "falcon_h1",
        hybrid_settings.falcon_h1,
        name_maps.FALCON_H1,
        name_maps.FALCON_H1_ENDS,
        put_back=(put_back.decays,),
    ),
    "mamba2": GgufArchitecture(
        "mamba2",
        hybrid_settings.mamba2,
        {**name_maps.mamba_in("mixer"), "attn_norm": "norm"},
        name_maps.NEMOTRON_H_ENDS,
        "backbone.layers",
        put_back=(put_back.decays,),
        keys=name_maps.LAYER_NORM_EPSILON,
        is_by_layer=True,
    ),
    "deepseek2": GgufArchitecture(
        "deepseek_v3",
        mixture_settings.deepseek2,
        {**name_maps.DEEPSEEK, **name_maps.LATENT},
        put_back=(put_back.latent_projections,),
        is_latent=True,
    ),
    "chatglm": GgufArchitecture(
        "glm",
        own_settings.biases,
        {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
        put_back=(put_back.apart,),
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
    "glm4moe": GgufArchitecture("glm4_moe", mixture_settings.glm4, {**name_maps.DEEPSEEK, **name_maps.NORM_BEHIND}),
    "dots1": GgufArchitecture("dots1", mixture_settings.dots1, name_maps.DEEPSEEK),
    "ernie4_5": GgufArchitecture("ernie4_5"),
    "ernie4_5-moe": GgufArchitecture(
        "ernie4_5_moe",
        mixture_settings.ernie,
        {**name_maps.SHARED, "exp_probs_b.bias": "mlp.moe_statics.e_score_correction_bias"},
    ),
    "minimax-m2": GgufArchitecture(
        "minimax_m2",
        mixture_settings.minimax,
        {**name_maps.MIXTRAL, "exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias"},
    ),
    "exaone": GgufArchitecture("exaone", names=name_maps.EXAONE, ends=name_maps.GPT2_ENDS, layer="transformer.h"),
    "exaone4": GgufArchitecture("exaone4", own_settings.exaone, name_maps.POST_NORMS),
    "exaone-moe": GgufArchitecture(
        "exaone_moe", mixture_settings.exaone, name_maps.DEEPSEEK, keys=name_maps.OWN_EXPERT_KEYS
    ),
    "bailingmoe2": GgufArchitecture(
        "bailing_moe",
        mixture_settings.ling,
        name_maps.LING,
        {"token_embd": "model.word_embeddings"},
        keys=name_maps.OWN_EXPERT_KEYS,
    ),
    "arcee": GgufArchitecture("arcee", put_back=(put_back.pairs,), has_biases=True),
    "hunyuan-dense": GgufArchitecture("hunyuan_v1_dense", names=name_maps.HUNYUAN, has_biases=True),
    "hunyuan-moe": GgufArchitecture(
        "hunyuan_v1_moe", mixture_settings.hunyuan, name_maps.HUNYUAN_EXPERTS, has_biases=True
    ),
    "seed_oss": GgufArchitecture("seed_oss", own_settings.biases, name_maps.NORM_BEHIND),
    "starcoder2": GgufArchitecture(
        "starcoder2",
        plain_settings.starcoder2,
        {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        keys={"rms_norm_eps": "norm_epsilon"},
        is_layer_norm=True,
    ),
    "cohere2": GgufArchitecture("cohere2", plain_settings.cohere2, keys=name_maps.LAYER_NORM_EPS, is_layer_norm=True),
    "olmo": GgufArchitecture("olmo", put_back=(put_back.pairs,), has_biases=True, is_layer_norm=True),
    "nemotron": GgufArchitecture("nemotron", keys=name_maps.NORM_EPS, has_biases=True, is_layer_norm=True),
    "starcoder": GgufArchitecture(
        "gpt_bigcode",
        plain_settings.starcoder,
        name_maps.GPT2,
        name_maps.GPT2_ENDS,
        "transformer.h",
        keys=name_maps.GPT2_KEYS,
        is_layer_norm=True,
    ),
    "command-r": GgufArchitecture("cohere", plain_settings.cohere, keys=name_maps.LAYER_NORM_EPS, is_layer_norm=True),
    "falcon": GgufArchitecture(
        "falcon",
        plain_settings.falcon,
        {**name_maps.FALCON, "attn_norm": "input_layernorm"},
        {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f"},
        "transformer.h",
        ("blk.0.attn_norm_2.weight", {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}),
        (put_back.heads_by_group,),
        {**name_maps.LAYER_NORM_EPSILON, "intermediate_size": "ffn_hidden_size"},
        is_layer_norm=True,
    ),
    "stablelm": GgufArchitecture(
        "stablelm", plain_settings.stablelm, keys=name_maps.LAYER_NORM_EPS, is_layer_norm=True
    ),
    "gptneox": GgufArchitecture(
        "gpt_neox",
        plain_settings.gptneox,
        {
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        name_maps.GPTNEOX_ENDS,
        "gpt_neox.layers",
        put_back=(put_back.heads_by_group,),
        keys={**name_maps.LAYER_NORM_EPS, "partial_rotary_factor": "rotary_pct"},
        is_layer_norm=True,
    ),
    "gpt2": GgufArchitecture(
        "gpt2",
        plain_settings.gpt2,
        name_maps.GPT2,
        name_maps.GPT2_ENDS,
        "transformer.h",
        keys=name_maps.GPT2_KEYS,
        is_layer_norm=True,
    ),
    "bert": GgufArchitecture(
        "bert",
        encoder_settings.bert,
        name_maps.BERT,
        name_maps.BERT_ENDS,
        "encoder.layer",
        keys=name_maps.LAYER_NORM_EPS,
        is_layer_norm=True,
        is_encoder=True,
    ),
    "nomic-bert": GgufArchitecture(
        "nomic_bert",
        encoder_settings.nomic,
        {
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output_norm": "post_attention_layernorm",
            "layer_output_norm": "post_mlp_layernorm",
        },
        name_maps.BERT_ENDS,
        "layers",
        put_back=(put_back.apart,),
        keys=name_maps.LAYER_NORM_EPS,
        is_layer_norm=True,
        is_encoder=True,
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
        keys=name_maps.LAYER_NORM_EPS,
        is_layer_norm=True,
    ),
}
