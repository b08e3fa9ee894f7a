"""UniSpeech-SAT with a head of CTC: each 20 ms of a sound say a character, or none.

The encoder is a tower (models/hearing/wav2vec2.py).
"""

from __future__ import annotations

from albireo.models.blocks.ctc_of_samples import build as build
from albireo.models.blocks.ctc_of_samples import rules

TINY = {
    "architectures": ["UniSpeechSatForCTC"],
    "model_type": "unispeech-sat",
    "vocab_size": 32,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "conv_dim": [8, 8, 8, 8, 8, 8, 8],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}

#: Of the encoder.
IGNORABLE_WEIGHTS = ("unispeech_sat.*",)
CONFIG = rules("UniSpeechSatForCTC")
