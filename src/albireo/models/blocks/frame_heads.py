"""What models have in common that say of each frame of a sound what is said there: their decoder is a head.

Called by the architecture files beside it. All of a sound is heard before anything is written (models/hearing/), and
what is written is decided by execution/writing.py. So a sequence has one position for its sound, and no KV cache.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.layers import ending
from albireo.models.config import ModelConfig

#: Of a FastConformer: the longest sound, in seconds and in frames of a hundredth, of which eight become one.
SECONDS, FRAMES, HALVED = 40, 4000, 500
HEAD = "lm_head"
#: What files say of a FastConformer, which is read with the tower, and of what its output is in training.
OF_ENCODER = keys(
    "attention_bias convolution_bias conv_kernel_size subsampling_factor subsampling_conv_channels num_mel_bins",
    "subsampling_conv_kernel_size subsampling_conv_stride dropout dropout_positions layerdrop activation_dropout",
    "scale_input num_key_value_heads ctc_loss_reduction ctc_zero_infinity max_symbols_per_step blank_token_id",
)


def head_of_frames(c: ModelConfig, max_model_len: int, act: str = "") -> Graph:
    """Rows [R, E] of frames -> logits. Args: act: what is made of a row before; empty: nothing."""
    b = GraphBuilder()
    x = b.given(c.hidden_size, 0)
    count = c.num_logits
    with b.part("head"):
        y = b.cast(b.unary(x, act) if act else x, c.dtype)
        weight = b.weight(f"{HEAD}.weight", (count, c.hidden_size), c.dtype)
        bias = b.weight(f"{HEAD}.bias", (count,), "float32")
    return ending(b, c, y, weight, bias)
