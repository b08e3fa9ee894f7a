"""What llama.cpp calls models with LayerNorms. See architectures.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from albireo.models.gguf import mixture_settings, name_maps, plain_settings, put_back
from albireo.models.gguf.architecture import GgufArchitecture

_normed = partial(GgufArchitecture, is_layer_norm=True)
LAYER_NORMS: Mapping[str, GgufArchitecture] = {
    "starcoder2": _normed(
        "starcoder2",
        plain_settings.starcoder2,
        {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        keys={"rms_norm_eps": "norm_epsilon"},
    ),
    "cohere2": _normed("cohere2", plain_settings.cohere2, keys=name_maps.LAYER_NORM_EPS),
    "olmo": _normed("olmo", put_back=(put_back.pairs,), has_biases=True),
    "nemotron": _normed("nemotron", keys=name_maps.NORM_EPS, has_biases=True),
    "starcoder": _normed(
        "gpt_bigcode",
        plain_settings.starcoder,
        name_maps.GPT2,
        name_maps.GPT2_ENDS,
        "transformer.h",
        keys=name_maps.GPT2_KEYS,
    ),
    "command-r": _normed("cohere", plain_settings.cohere, keys=name_maps.LAYER_NORM_EPS),
    "falcon": _normed(
        "falcon",
        plain_settings.falcon,
        {**name_maps.FALCON, "attn_norm": "input_layernorm"},
        {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f"},
        "transformer.h",
        ("blk.0.attn_norm_2.weight", {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}),
        (put_back.heads_by_group,),
        {**name_maps.LAYER_NORM_EPSILON, "intermediate_size": "ffn_hidden_size"},
    ),
    "stablelm": _normed("stablelm", plain_settings.stablelm, keys=name_maps.LAYER_NORM_EPS),
    "gptneox": _normed(
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
    ),
    "gpt2": _normed(
        "gpt2", plain_settings.gpt2, name_maps.GPT2, name_maps.GPT2_ENDS, "transformer.h", keys=name_maps.GPT2_KEYS
    ),
    "phi2": _normed(
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
    ),
    "jais2": _normed("jais2", plain_settings.jais2, keys=name_maps.LAYER_NORM_EPS),
    "bloom": _normed(
        "bloom",
        plain_settings.bloom,
        name_maps.FALCON,
        name_maps.BLOOM_ENDS,
        "transformer.h",
        put_back=(put_back.heads_by_group,),
        keys=name_maps.BLOOM_KEYS,
    ),
    "mpt": _normed(
        "mpt",
        plain_settings.mpt,
        name_maps.MPT,
        name_maps.MPT_ENDS,
        "transformer.blocks",
        keys={**name_maps.MPT_KEYS, **name_maps.LAYER_NORM_EPSILON},
    ),
    "dbrx": _normed(
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
    ),
    "phimoe": _normed("phimoe", plain_settings.phimoe, name_maps.MIXTRAL),
    "cohere2moe": _normed("cohere2_moe", mixture_settings.cohere2, name_maps.SHARED),
    "orion": _normed("orion", has_biases=True),
}
