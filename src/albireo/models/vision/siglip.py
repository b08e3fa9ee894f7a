"""SigLIP: learned positions, LayerNorm, biases everywhere; of Idefics3, SmolVLM, Gemma 3, LFM2-VL and PaddleOCR-VL.

Called by these families. Sources: Zhai et al. 2023, SigLIP; Tschannen et al. 2025, SigLIP 2.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, Names, layers, linear, norm

NAMES = Names("layer_norm1", out="self_attn.out_proj", ffn_norm="layer_norm2")
DEFAULTS = sizes(768, 3072, 12, 12, patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)


def siglip(
    c: EncoderSettings,
    prefix: str,
    num_positions: int | None,
    further_norm: tuple[str, float] | None = None,
    num_layers: int | None = None,
    names: Names = NAMES,
) -> Graph:
    """Hidden states behind the last norm of patches in reading order.

    Args: num_positions: rows of the table of positions, which are those of a tile's patches in order; None: the step
        brings positions, as its second given rows. further_norm: name and eps of one behind the last, of each patch.
        num_layers: behind which states are taken, without a norm; None: behind all of them and the norm.
        names: of parts of a layer.
    """
    b = GraphBuilder()
    with b.part("embed"):
        x = linear(b, c, b.given(c.patch_width, 0), f"{prefix}.embeddings.patch_embedding", c.hidden_size, "patches")
        with b.part("positions"):
            x = b.add(x, _positions(b, c, prefix, num_positions))
    x = layers(b, c, x, f"{prefix}.encoder.layers", names, num_layers)
    if num_layers is not None:
        return pooled_states(b, x)
    with b.part("head"):
        x = norm(b, c, x, f"{prefix}.post_layernorm")
        if further_norm is not None:
            with b.part("further"):
                x = norm(b, c, x, *further_norm)
    return pooled_states(b, x)


def _positions(b: GraphBuilder, c: EncoderSettings, prefix: str, num_positions: int | None) -> Value:
    if num_positions is None:
        return b.given(c.hidden_size, 1)
    name = f"{prefix}.embeddings.position_embedding.weight"
    return b.embed(b.positions, b.weight(name, (num_positions, c.hidden_size), c.dtype))
