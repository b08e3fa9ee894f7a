"""Omnilingual ASR (300M to 7B) with a head of CTC: each 20 ms of a sound say a token, or none.

The encoder is a tower (models/hearing/wav2vec2.py).
"""

from __future__ import annotations

from albireo.models.blocks.ctc_of_samples import build as build
from albireo.models.blocks.ctc_of_samples import rules

TINY = {
    "architectures": ["OmniASRForCTC"],
    "model_type": "omniasr_ctc",
    "vocab_size": 64,
    "audio_config": {
        "model_type": "omniasr_audio",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "conv_dim": [8, 8, 8, 8, 8, 8, 8],
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    },
    "blank_token_id": 0,
    "pad_token_id": 1,
    "torch_dtype": "float32",
}

CONFIG = rules(
    "OmniASRForCTC",
    ("audio_config",),
    vocab_size=10288,
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
)
