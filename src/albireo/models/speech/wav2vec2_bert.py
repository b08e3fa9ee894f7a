"""W2v-BERT 2.0 with a head of CTC: each 20 ms of a sound say a character, or none.

The encoder is a tower (models/hearing/wav2vec2_bert.py).
"""

from __future__ import annotations

from albireo.json_file import keys
from albireo.models.blocks.ctc_of_samples import build as build
from albireo.models.blocks.ctc_of_samples import num_frames, rules

TINY = {
    "architectures": ["Wav2Vec2BertForCTC"],
    "model_type": "wav2vec2-bert",
    "vocab_size": 32,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "feature_projection_input_dim": 32,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}

#: Of the longest sound: seconds, and rows of two frames of a hundredth of a second each.
SECONDS, ROWS = 30, num_frames(16000 * 30)
#: Of the encoder.
IGNORABLE_WEIGHTS = ("wav2vec2_bert.*",)
CONFIG = rules(
    "Wav2Vec2BertForCTC",
    beside=keys(
        "adapter_act conformer_conv_dropout conv_depthwise_kernel_size feature_projection_input_dim",
        "left_max_position_embeddings max_source_positions position_embeddings_type right_max_position_embeddings",
        "rotary_embedding_base use_intermediate_ffn_before_adapter",
    ),
    activation="silu",
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    hidden_act="swish",
)
