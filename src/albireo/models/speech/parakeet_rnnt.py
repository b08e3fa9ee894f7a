"""Parakeet RNN-T: of each frame, and of what was said before it, what is said there, until a frame has no more to say.

The encoder is a tower (models/hearing/parakeet.py), what was said before is heard by an LSTM
(models/hearing/transducer.py); the head reads what both give, added. Source: Graves 2012, Sequence Transduction with
Recurrent Neural Networks.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.node import Graph
from albireo.models.blocks.frame_heads import OF_ENCODER, head_of_frames
from albireo.models.config import ModelConfig
from albireo.models.speech import parakeet_ctc

TINY = parakeet_ctc.TINY | {
    "architectures": ["ParakeetForRNNT"],
    "model_type": "parakeet_rnnt",
    "pad_token_id": 2,
    "blank_token_id": 130,
    "decoder_hidden_size": 32,
    "num_decoder_layers": 2,
    "hidden_act": "relu",
    "is_encoder_decoder": True,
}

CONFIG = replace(
    parakeet_ctc.CONFIG,
    activation="plain",
    older_names={"decoder_hidden_size": "hidden_size"},
    deciding=frozenset({"decoder_hidden_size"}),  # what another hidden_size beside it is meant of is the encoder
    built_in={"is_encoder_decoder": True},
    defaults={
        **parakeet_ctc.CONFIG.defaults,
        "vocab_size": 8193,
        "hidden_act": "relu",
    },
    ignorable=OF_ENCODER | {"num_decoder_layers"},
    class_names=("ParakeetForRNNT",),
)


def build(c: ModelConfig, max_model_len: int) -> Graph:
    """The joint network: what encoder and LSTM give, added -> logits."""
    return head_of_frames(c, max_model_len, c.hidden_act)
