"""Parakeet CTC: each frame of a sound says a token, or none; what is said is their likeliest, repeats taken together.

The encoder is a tower (models/hearing/parakeet.py). Sources: Graves et al. 2006, Connectionist Temporal Classification;
Rekesh et al. 2023, Fast Conformer.
"""

from __future__ import annotations

from albireo.models.blocks.frame_heads import HALVED, OF_ENCODER, head_of_frames
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import sizes

TINY = {
    "architectures": ["ParakeetForCTC"],
    "model_type": "parakeet_ctc",
    "vocab_size": 131,
    "pad_token_id": 130,
    "encoder_config": {
        "model_type": "parakeet_encoder",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "subsampling_conv_channels": 6,
        "num_mel_bins": 16,
    },
    "torch_dtype": "float32",
}


CONFIG = ConfigRules(
    tables=("encoder_config",),
    blocks=BlockSettings(sound_positions=1, marked_frames=HALVED),
    has_rope=False,
    head_dim=2,
    defaults=sizes(
        1024, 4096, 24, 8, vocab_size=1025, hidden_act="silu", max_position_embeddings=5000, tie_word_embeddings=False
    ),
    ignorable=OF_ENCODER,
    class_names=("ParakeetForCTC",),
)


build = head_of_frames
