"""What llama.cpp calls mixtures of experts. See architectures.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from albireo.models.gguf import latent_settings, layered_settings, mixture_settings, name_maps, put_back
from albireo.models.gguf.architecture import GgufArchitecture

_latent = partial(GgufArchitecture, put_back=(put_back.latent_projections,), is_latent=True)
MIXTURES: Mapping[str, GgufArchitecture] = {
    "llama4": GgufArchitecture("llama4_text", mixture_settings.llama4, name_maps.LLAMA4, has_biases=True),
    "qwen2moe": GgufArchitecture("qwen2_moe", mixture_settings.qwen2),
    "qwen3moe": GgufArchitecture("qwen3_moe", mixture_settings.qwen3),
    "qwen3vlmoe": GgufArchitecture("qwen3_moe", mixture_settings.qwen3),
    "granitemoe": GgufArchitecture(
        "granitemoe",
        mixture_settings.granite,
        name_maps.GRANITE_MOE,
        put_back=(put_back.pairs, put_back.shared_ffn),
        has_biases=True,
    ),
    "olmoe": GgufArchitecture("olmoe", mixture_settings.olmoe),
    "gpt-oss": GgufArchitecture(
        "gpt_oss", mixture_settings.gpt_oss, {**name_maps.NORM_BEHIND, "ffn_gate_inp": "mlp.router"}
    ),
    "deepseek2": _latent("deepseek_v3", latent_settings.deepseek2, {**name_maps.DEEPSEEK, **name_maps.LATENT}),
    "glm4moe": GgufArchitecture("glm4_moe", mixture_settings.glm4, {**name_maps.DEEPSEEK, **name_maps.NORM_BEHIND}),
    "dots1": GgufArchitecture("dots1", mixture_settings.dots1, name_maps.DEEPSEEK),
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
    "hunyuan-moe": GgufArchitecture(
        "hunyuan_v1_moe", mixture_settings.hunyuan, name_maps.HUNYUAN_EXPERTS, has_biases=True
    ),
    "hy_v3": GgufArchitecture("hy_v3", mixture_settings.hy_v3, name_maps.HY_V3),
    "afmoe": GgufArchitecture(
        "afmoe",
        mixture_settings.afmoe,
        name_maps.AFMOE,
        keys={
            **name_maps.OWN_EXPERT_KEYS,
            "first_k_dense_replace": "num_dense_layers",
            "routed_scaling_factor": "route_scale",
        },
    ),
    "deepseek32": _latent("deepseek_v32", latent_settings.deepseek32, name_maps.DSA),
    "glm-dsa": _latent("glm_moe_dsa", latent_settings.glm_dsa, name_maps.DSA),
    "laguna": GgufArchitecture("laguna", layered_settings.laguna, name_maps.LAGUNA),
    "mimo2": GgufArchitecture("mimo_v2_flash", layered_settings.mimo, name_maps.MIMO, is_latent=True, is_by_layer=True),
    "step35": GgufArchitecture("step3p5", layered_settings.step, name_maps.STEP),
    "minimax-m3": GgufArchitecture("minimax_m3_vl_text", layered_settings.minimax_m3, name_maps.MINIMAX_M3),
    "mellum": GgufArchitecture("mellum", layered_settings.mellum),
    "mistral4": _latent("mistral4", latent_settings.mistral4, {**name_maps.DEEPSEEK, **name_maps.LATENT}),
    "deepseek4": GgufArchitecture(
        "deepseek_v4",
        latent_settings.deepseek4,
        name_maps.DEEPSEEK4,
        name_maps.DEEPSEEK4_ENDS,
        put_back=(put_back.experts_of_tokens,),
        is_by_layer=True,
    ),
}
