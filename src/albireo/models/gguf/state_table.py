"""What llama.cpp calls models whose layers keep a state. See architectures.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from albireo.models.gguf import hybrid_settings, latent_settings, name_maps, put_back
from albireo.models.gguf.architecture import GgufArchitecture

#: As Mamba's authors call what is around layers.
_backbone = partial(
    GgufArchitecture,
    ends=name_maps.NEMOTRON_H_ENDS,
    layer="backbone.layers",
    put_back=(put_back.decays,),
    keys=name_maps.LAYER_NORM_EPSILON,
)
STATES: Mapping[str, GgufArchitecture] = {
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
    "granitehybrid": GgufArchitecture(
        "granitemoehybrid",
        hybrid_settings.granite,
        name_maps.GRANITE_HYBRID,
        put_back=(put_back.pairs, put_back.decays, put_back.shared_ffn),
        has_biases=True,
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
    **dict.fromkeys(
        ("nemotron_h", "nemotron_h_moe"), _backbone("nemotron_h", hybrid_settings.nemotron, name_maps.NEMOTRON_H)
    ),
    "falcon-h1": GgufArchitecture(
        "falcon_h1",
        hybrid_settings.falcon_h1,
        name_maps.FALCON_H1,
        name_maps.FALCON_H1_ENDS,
        put_back=(put_back.decays,),
    ),
    "mamba2": _backbone(
        "mamba2", hybrid_settings.mamba2, {**name_maps.mamba_in("mixer"), "attn_norm": "norm"}, is_by_layer=True
    ),
    "mamba": _backbone("mamba", hybrid_settings.mamba1, name_maps.MAMBA1, is_by_layer=True),
    "jamba": GgufArchitecture(
        "jamba",
        hybrid_settings.jamba,
        name_maps.JAMBA,
        {"output_norm": "model.final_layernorm"},
        put_back=(put_back.decays,),
    ),
    "kimi-linear": GgufArchitecture(
        "kimi_linear",
        latent_settings.kimi_linear,
        name_maps.KIMI_LINEAR,
        put_back=(put_back.latent_projections, put_back.decays),
        keys={"max_position_embeddings": "model_max_length"},
        is_latent=True,
    ),
}
