"""What llama.cpp calls models with RMS norms whose layers have one FFN. See architectures.py.

llama stands for Mistral too, and with experts for Mixtral; InternLM 2 is llama once its projections lie apart; olmo2
with windows for OLMo 3.
"""

from __future__ import annotations

from collections.abc import Mapping

from albireo.models.gguf import (
    gemma3n_settings,
    gemma4_settings,
    latent_settings,
    mixture_settings,
    name_maps,
    own_settings,
    put_back,
)
from albireo.models.gguf.architecture import GgufArchitecture

DENSE: Mapping[str, GgufArchitecture] = {
    "llama": GgufArchitecture(
        "llama", mixture_settings.mixtral, name_maps.MIXTRAL, put_back=(put_back.pairs,), has_biases=True
    ),
    "internlm2": GgufArchitecture("llama", put_back=(put_back.pairs,), has_biases=True),
    "minicpm": GgufArchitecture("minicpm", own_settings.minicpm, put_back=(put_back.pairs,), has_biases=True),
    "mistral3": GgufArchitecture("ministral3", own_settings.mistral3, put_back=(put_back.pairs,)),
    "qwen2": GgufArchitecture("qwen2", own_settings.without_windows),
    "qwen3": GgufArchitecture("qwen3"),
    "qwen3vl": GgufArchitecture("qwen3", own_settings.qwen3),
    "phi3": GgufArchitecture(
        "phi3", own_settings.phi3, {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
    ),
    "gemma": GgufArchitecture("gemma"),
    "gemma2": GgufArchitecture("gemma2", own_settings.gemma2, name_maps.GEMMA),
    "gemma3": GgufArchitecture("gemma3_text", own_settings.gemma3, name_maps.GEMMA),
    "gemma-embedding": GgufArchitecture(
        "gemma3_text", own_settings.gemma_embedding, name_maps.GEMMA, name_maps.DENSE_ENDS, is_encoder=True
    ),
    "gemma3n": GgufArchitecture("gemma3n_text", gemma3n_settings.gemma3n, name_maps.GEMMA3N, name_maps.GEMMA3N_ENDS),
    "gemma4": GgufArchitecture(
        "gemma4_text", gemma4_settings.gemma4, name_maps.GEMMA4, name_maps.GEMMA4_ENDS, is_by_layer=True
    ),
    "granite": GgufArchitecture("granite", own_settings.granite, put_back=(put_back.pairs,), has_biases=True),
    "olmo2": GgufArchitecture("olmo2", own_settings.olmo, name_maps.POST_NORMS),
    "smollm3": GgufArchitecture("smollm3", own_settings.smollm3, put_back=(put_back.pairs,), has_biases=True),
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
    "ernie4_5": GgufArchitecture("ernie4_5"),
    "exaone": GgufArchitecture("exaone", names=name_maps.EXAONE, ends=name_maps.GPT2_ENDS, layer="transformer.h"),
    "exaone4": GgufArchitecture("exaone4", own_settings.exaone, name_maps.POST_NORMS),
    "arcee": GgufArchitecture("arcee", put_back=(put_back.pairs,), has_biases=True),
    "hunyuan-dense": GgufArchitecture("hunyuan_v1_dense", names=name_maps.HUNYUAN, has_biases=True),
    "seed_oss": GgufArchitecture("seed_oss", own_settings.biases, name_maps.NORM_BEHIND),
    "apertus": GgufArchitecture(
        "apertus",
        own_settings.apertus,
        {"attn_norm": "attention_layernorm", "ffn_norm": "feedforward_layernorm"},
        put_back=(put_back.slopes,),
    ),
    "minicpm3": GgufArchitecture("minicpm3", latent_settings.minicpm3, name_maps.LATENT, is_latent=True),
    "xverse": GgufArchitecture("xverse", put_back=(put_back.pairs,)),
    "deci": GgufArchitecture(
        "nemotron-nas", own_settings.decilm, put_back=(put_back.pairs,), has_biases=True, is_by_layer=True
    ),
    "granite_swa": GgufArchitecture(
        "granite_swa", own_settings.granite_swa, name_maps.GRANITE_SWA, put_back=(put_back.pairs,), has_biases=True
    ),
    "hrm_text": GgufArchitecture(
        "hrm_text",
        own_settings.hrm_text,
        {"attn_gate": "self_attn.gate_proj"},
        {"hrm.z_l_init": "model.z_L_init"},
        put_back=(put_back.stacks,),
    ),
    "qwen2vl": GgufArchitecture("qwen2", own_settings.qwen2_vl),
}
