"""WavLM with a head of CTC: each 20 ms of a sound say a character, or none.

The encoder is a tower (models/hearing/wavlm.py).
"""

from __future__ import annotations

from albireo.json_file import keys
from albireo.models.blocks.ctc_of_samples import build as build
from albireo.models.blocks.ctc_of_samples import rules

TINY = {
    "architectures": ["WavLMForCTC"],
    "model_type": "wavlm",
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
IGNORABLE_WEIGHTS = ("wavlm.*",)
CONFIG = rules("WavLMForCTC", beside=keys("num_buckets max_bucket_distance"))
