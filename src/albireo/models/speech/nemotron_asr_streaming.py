"""Nemotron Speech Streaming: a Parakeet RNN-T whose encoder can hear a sound as it comes.

The encoder is a tower (models/hearing/parakeet.py), and hears all of a sound at once. Source: Noroozi et al. 2023,
Stateful Conformer with Cache-based Inference for Streaming ASR.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.models.blocks.frame_heads import HALVED
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.speech import parakeet_rnnt

TINY = parakeet_rnnt.TINY | {
    "architectures": ["NemotronAsrStreamingForRNNT"],
    "model_type": "nemotron_asr_streaming",
    "encoder_config": {
        "model_type": "nemotron_asr_streaming_encoder",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "subsampling_conv_channels": 6,
        "num_mel_bins": 16,
        "sliding_window": 9,
        "default_num_lookahead_tokens": 3,
    },
}


CONFIG = replace(
    parakeet_rnnt.CONFIG,
    blocks=BlockSettings(sound_positions=1, marked_frames=HALVED + 1),
    defaults={**parakeet_rnnt.CONFIG.defaults, "vocab_size": 1025},
    ignorable=parakeet_rnnt.CONFIG.ignorable | {"sliding_window", "default_num_lookahead_tokens"},
    class_names=("NemotronAsrStreamingForRNNT",),
)

build = parakeet_rnnt.build
