"""Canary: a FastConformer, and a decoder as Cohere Transcribe has, which writes down what is said, or what it means in
another language.

The encoder is a tower (models/hearing/canary.py). Tensors have transformers' names in files, and NeMo's here; positions
are sines, which no file has. Source: Sekoyan et al. 2025, Canary-1B-v2 & Parakeet-TDT-0.6B-v3.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import Fields, keys
from albireo.models.blocks.frame_heads import HALVED
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.speech import cohere_asr

TINY = {
    "architectures": ["CanaryForConditionalGeneration"],
    "model_type": "canary",
    "vocab_size": 131,
    "decoder_config": {
        "model_type": "canary_decoder",
        "vocab_size": 131,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 12,
        "max_position_embeddings": 64,
    },
    "encoder_config": {
        "model_type": "parakeet_encoder",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "subsampling_conv_channels": 6,
        "num_mel_bins": 16,
    },
    "is_encoder_decoder": True,
    "bos_token_id": 4,
    "eos_token_id": 3,
    "torch_dtype": "float32",
}

IGNORABLE_WEIGHTS = cohere_asr.IGNORABLE_WEIGHTS


def _blocks(fields: Fields) -> BlockSettings:
    return replace(cohere_asr.blocks(fields), sound_positions=HALVED)


CONFIG = replace(
    cohere_asr.CONFIG,
    tables=("decoder_config",),
    blocks=_blocks,
    defaults={**cohere_asr.CONFIG.defaults, "tie_word_embeddings": True},
    ignorable=keys("encoder_config"),
    class_names=("CanaryForConditionalGeneration",),
)


build = cohere_asr.build


listening = cohere_asr.listening
