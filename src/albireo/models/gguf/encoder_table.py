"""What llama.cpp calls models that embed texts. See architectures.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from albireo.models.gguf import encoder_settings, name_maps, put_back
from albireo.models.gguf.architecture import GgufArchitecture

_normed = partial(GgufArchitecture, is_layer_norm=True, is_encoder=True)
ENCODERS: Mapping[str, GgufArchitecture] = {
    "bert": _normed(
        "bert",
        encoder_settings.bert,
        name_maps.BERT,
        name_maps.BERT_ENDS,
        "encoder.layer",
        keys=name_maps.LAYER_NORM_EPS,
    ),
    "nomic-bert": _normed(
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
    ),
    "modern-bert": _normed(
        "modernbert",
        encoder_settings.modernbert,
        name_maps.MODERN_BERT,
        name_maps.MODERN_BERT_ENDS,
        "layers",
        keys=name_maps.NORM_EPS,
    ),
    "eurobert": GgufArchitecture("eurobert", is_encoder=True),
}
