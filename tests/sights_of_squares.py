"""Tiny models whose pictures are one square tile each, whatever their proportions.

Used by tiny_sights.py.
"""

from __future__ import annotations

import sight_inputs
from sight_family import LLAMA, SIGLIP, Family

_MARKS = ("<image_placeholder>", "<begin_of_image>", "<end_of_image>")
_SIDE = {"height": 32, "width": 32}
_OPENS = {"use_default_system_prompt": True}
_VQ = {"base_channels": 32, "num_embeddings": 8, "projection_dim": 8, "latent_channels": 8}

OF_SQUARES: dict[str, Family] = {
    "janus": Family(
        "JanusForConditionalGeneration",
        _MARKS,
        "<image_placeholder>",
        lambda ids: {
            "text_config": {**LLAMA, "vocab_size": len(ids)},
            "vision_config": {
                **{key: value for key, value in SIGLIP.items() if key != "intermediate_size"},
                **{"mlp_ratio": 1.5, "projection_dim": 48, "num_image_tokens": 16},
            },
            "vq_config": _VQ,
            "image_token_id": ids["<image_placeholder>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "JanusImageProcessor", "size": _SIDE},
            "processor_config.json": {"processor_class": "JanusProcessor", "num_image_tokens": 16, **_OPENS},
        },
        inputs=sight_inputs.of_internvl,
    ),
    "deepseek_vl": Family(
        "DeepseekVLForConditionalGeneration",
        _MARKS,
        "<image_placeholder>",
        lambda ids: {
            "text_config": {**LLAMA, "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
            "image_token_id": ids["<image_placeholder>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "DeepseekVLImageProcessor", "size": _SIDE},
            "processor_config.json": {"processor_class": "DeepseekVLProcessor", "num_image_tokens": 16},
        },
        inputs=sight_inputs.of_internvl,
    ),
}
