"""What Gemma 3n and 4 give each layer of a token beside the residual stream: of an embedding of the layer's own, and of
the embedding that all layers share.

Called by the architecture files. Uses the parts of layers.py.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.models.blocks.layers import linear
from albireo.models.config import ModelConfig
from albireo.models.settings.multipliers import nearest

_TABLE = "model.embed_tokens_per_layer.weight"
#: Of both summands of what a layer is given.
_HALF_ROOT = 2**-0.5


def given_to_layers(b: GraphBuilder, c: ModelConfig, x: Value) -> tuple[Value, ...]:
    """What each layer is given of each token, [T, layer_width] float32: of an embedding of its own, and of x, that of
    all layers; empty where there is no such thing.

    A token of an image has the row of the table that the step has for it, where x has that of the image.
    The table is as large as the rest of the model and a step reads a row a token, so it stays in the checkpoint's type.
    A linear's result is multiplied by E^-0.5 and normed: that is a norm whose eps is divided by its square.
    """
    width, count = c.blocks.layer_width, c.num_layers
    if not width:
        return ()
    with b.part("given"):
        entries = c.blocks.layer_entries or c.vocab_size
        # ids behind the table's end have its first row
        rows = (RowSegment(_TABLE, 0, entries), *(RowSegment(_TABLE, 0, 1),) * (c.vocab_size - entries))
        table = b.weight(_TABLE, (c.vocab_size, count * width), c.stored_dtype, segments=rows)
        own = b.scale(b.embed(b.token_ids, table, never_given=True), nearest(width**0.5, c.dtype) * _HALF_ROOT)
        of_x = linear(b, c, b.cast(x, c.dtype), "model.per_layer_model_projection", count * width, "of_x", False, None)
        weight = b.weight("model.per_layer_projection_norm.weight", (width,), "float32", factor=_HALF_ROOT)
        of_x = b.rms_norm(of_x, weight, c.rms_norm_eps * c.hidden_size, num_heads=count)
        return b.split(b.add(own, of_x), (width,) * count)


def made_of_given(b: GraphBuilder, c: ModelConfig, x: Value, given: Value, layer: int) -> Value:
    """norm(projection(act(gate(x)) * given)), float32."""
    name = f"model.layers.{layer}"
    gate = linear(b, c, b.cast(x, c.dtype), f"{name}.per_layer_input_gate", c.blocks.layer_width, "gate", False, None)
    with b.part("act"):
        m = b.cast(b.mul(b.unary(gate, c.hidden_act), given), c.dtype)
    out = linear(b, c, m, f"{name}.per_layer_projection", c.hidden_size, "projection", False, None)
    with b.part("out"):
        weight = b.weight(f"{name}.post_per_layer_input_norm.weight", (c.hidden_size,), "float32")
        return b.rms_norm(out, weight, c.rms_norm_eps)
