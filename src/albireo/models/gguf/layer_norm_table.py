"""What llama.cpp calls models with LayerNorms. See architectures.py."""

from __future__ import annotations

from collections.abc import Mapping

from albireo.models.gguf import mixture_settings, name_maps, plain_settings, put_back
from albireo.models.gguf.architecture import GgufArchitecture

LAYER_NORMS: Mapping[str, GgufArchitecture] = {
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
    "jais2": GgufArchitecture("jais2", plain_settings.jais2, keys=name_maps.LAYER_NORM_EPS, is_layer_norm=True),
    "bloom": GgufArchitecture(
        "bloom",
        plain_settings.bloom,
        name_maps.FALCON,
        name_maps.BLOOM_ENDS,
        "transformer.h",
        put_back=(put_back.heads_by_group,),
        keys=name_maps.BLOOM_KEYS,
        is_layer_norm=True,
    ),
    "mpt": GgufArchitecture(
        "mpt",
        plain_settings.mpt,
        name_maps.MPT,
        name_maps.MPT_ENDS,
        "transformer.blocks",
        keys={**name_maps.MPT_KEYS, **name_maps.LAYER_NORM_EPSILON},
        is_layer_norm=True,
    ),
    "dbrx": GgufArchitecture(
        "dbrx",
        plain_settings.dbrx,
        name_maps.DBRX,
        name_maps.MPT_ENDS,
        "transformer.blocks",
        keys={
            **name_maps.MPT_KEYS,
            "num_key_value_heads": "kv_n_heads",
            "intermediate_size": "ffn_hidden_size",
            "num_local_experts": "moe_num_experts",
            "num_experts_per_tok": "moe_top_k",
        },
        is_layer_norm=True,
    ),
    "phimoe": GgufArchitecture("phimoe", plain_settings.phimoe, name_maps.MIXTRAL, is_layer_norm=True),
    "cohere2moe": GgufArchitecture("cohere2_moe", mixture_settings.cohere2, name_maps.SHARED, is_layer_norm=True),
    "orion": GgufArchitecture("orion", is_layer_norm=True, has_biases=True),
}
