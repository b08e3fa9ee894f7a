"""The text part of models that put texts and pictures into one space: learned positions, LayerNorm, biases everywhere,
and a linear behind the last norm.

Called by the architecture files.
"""

from __future__ import annotations

from albireo.graph.node import Graph
from albireo.models.blocks.layers import Ends, linear, pooled_states, unrounded_norm
from albireo.models.blocks.plain_layers import Names, Positions, hidden_states
from albireo.models.config import ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import OF_CLASSES

_EMBEDDINGS = "text_model.embeddings"
_NAMES = Names("text_model.encoder.layers", "self_attn", "out_proj", "mlp", "fc1", "fc2", "layer_norm1", "layer_norm2")
_ENDS = Ends(f"{_EMBEDDINGS}.token_embedding.weight", "text_model.final_layer_norm")
#: Of the tower of pictures, how near two embeddings are called near, and numbers 0, 1, ... of old files.
IGNORABLE_WEIGHTS = (
    *("vision_model.*", "visual_projection.*", "logit_scale", "logit_bias"),
    *("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
)
BLOCKS = BlockSettings(is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True)
TINY = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
    "torch_dtype": "float32",
}


def defaults(model_type: str, eps: float, act: str) -> dict[str, object]:
    """What absent keys mean. Args: model_type: of the text part. eps, act: of its norms, of its FFNs."""
    return {**OF_CLASSES[model_type], "layer_norm_eps": eps, "hidden_act": act}


def build(config: ModelConfig, max_model_len: int, *, projection: str, has_bias: bool) -> Graph:
    """Args: projection: the linear behind the last norm, which has a bias or not."""
    b, x = hidden_states(config, max_model_len, _NAMES, _ENDS, Positions(f"{_EMBEDDINGS}.position_embedding.weight"))
    with b.part("head"):
        x = unrounded_norm(b, config, x, f"{_ENDS.norm}.weight")
        x = linear(b, config, b.cast(x, config.dtype), projection, config.hidden_size, "paired", has_bias, None)
    return pooled_states(b, x)
