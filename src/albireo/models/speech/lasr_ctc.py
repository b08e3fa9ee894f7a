"""LASR with a head of CTC (Google's MedASR): each 40 ms of a sound say a token, or none.

The encoder is a tower (models/hearing/lasr.py).
"""

from __future__ import annotations

from albireo.json_file import keys
from albireo.models.blocks.frame_heads import OF_ENCODER, head_of_frames
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import sizes

TINY = {
    "architectures": ["LasrForCTC"],
    "model_type": "lasr_ctc",
    "vocab_size": 64,
    "pad_token_id": 0,
    "encoder_config": {
        "model_type": "lasr_encoder",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "subsampling_conv_channels": 24,
        "num_mel_bins": 16,
    },
    "torch_dtype": "float32",
}

#: Seconds and frames of the longest sound; and of a convolution, frames that it sees and goes on by.
SECONDS, FRAMES, KERNEL, STRIDE = 40, 3998, 5, 2
#: Frames of which both convolutions make one.
FEWEST = (KERNEL - 1) * STRIDE + KERNEL
_BESIDE = keys("layer_norm_eps feed_forward_residual_weights conv_residual_weights batch_norm_momentum rope_parameters")


def num_frames(count: int, times: int = 2) -> int:
    """What so many frames are behind the first convolutions."""
    for _ in range(times):
        count = (count - KERNEL) // STRIDE + 1
    return count


CONFIG = ConfigRules(
    tables=("encoder_config",),
    blocks=BlockSettings(sound_positions=1, marked_frames=num_frames(FRAMES)),
    has_rope=False,
    head_dim=2,
    defaults=sizes(
        512, 2048, 17, 8, vocab_size=512, hidden_act="silu", max_position_embeddings=10000, tie_word_embeddings=False
    ),
    ignorable=OF_ENCODER | _BESIDE,
    class_names=("LasrForCTC",),
)


build = head_of_frames
