"""Hunyuan 0.5B to 7B: llama with norms of each head of q and k behind their rotation, whose base a number stretches."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.layers import AttentionNames
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "model_type": "hunyuan_v1_dense",
    "vocab_size": 127,
    "intermediate_size": 72,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1},
    "bos_token_id": 1,
    "pad_token_id": 0,
}

#: Keys that repeat others, or are of what a model does not do or have. Also of the one with experts.
IGNORABLE = keys(
    "add_classification_head class_num cla_share_factor dense_list pool_type org_vocab_size eod_token_id pad_id",
    "im_end_id im_start_id im_newline_id text_start_id text_end_id video_start_id video_end_id mask_init_id",
    "num_media_embeds anyres_pooling_size anyres_vit_max_image_size anyres_vit_two_views xdrope_section auto_map",
    "vit_add_patchemb_bias vit_input_resolution vit_mapping_type vit_norm_type vit_patch vit_path vit_remove_prenorm",
    "vit_token vit_type vit_used_rms_norm skip_cls_token",
)
BUILT_IN = {"use_qk_norm": True, "use_rotary_pos_emb": True, "norm_type": "rms"}
CONFIG = ConfigRules(
    keys=keys("attention_bias alpha"),
    older_names={"attention_head_dim": "head_dim"},
    defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    built_in=BUILT_IN,
    ignorable=IGNORABLE,
    class_names=("HunYuanDenseV1ForCausalLM",),
)
ATTENTION = AttentionNames(q_norm="query_layernorm", k_norm="key_layernorm")
build = partial(decoder, qk_norm=True, is_norm_behind=True, names=ATTENTION)
