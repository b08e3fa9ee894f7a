"""Layers that differ in what they have, as config.json of models says that were cut from larger ones: KV heads, and
channels of FFNs, of each layer, or that it has no attention, or no FFN.

Called by architecture files for config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from albireo.json_file import Fields

_MAX_HEADS, _MAX_WIDTH = 2**12, 2**20
#: Widths of FFNs are rounded up to a multiple of it.
_STEP = 256
#: What may be said of a block: it is what is computed. The last two are of files that newer tools write.
_NEUTRAL = {
    "unshifted_sink": (False,),
    "use_prefill_window_in_sink_attention": (False,),
    "gated": (True,),
    "hidden_act": ("silu",),
}


class LayerPart(NamedTuple):
    """Fields: kv_heads: of its attention; 0: it has none. ffn_width: channels of its FFN; 0: it has none."""

    kv_heads: int
    ffn_width: int


def parse_block_configs(fields: Fields, heads: int, hidden: int) -> tuple[LayerPart, ...]:
    """Of Nemotron's models that were made by a search. Args: heads: of queries, in every layer. hidden: hidden_size.

    Raises: ModelError, UnsupportedModel for a block that is a linear, or has attention of another kind.
    """
    said = fields.raw("block_configs")
    if not isinstance(said, list) or not said or not all(isinstance(each, dict) for each in said):
        fields.fail("block_configs", said, "must be a list of objects, one for each layer")
    layers = fields.integer("num_hidden_layers", 1, 2**12, default=len(said))
    if layers != len(said):
        fields.fail("block_configs", said, f"must have an entry of each of num_hidden_layers={layers} layers")
    return tuple(_part(fields, each, i, heads, hidden) for i, each in enumerate(said))


def _part(fields: Fields, said: dict[str, Any], layer: int, heads: int, hidden: int) -> LayerPart:
    block = Fields(said, f"{fields.where}: block_configs[{layer}]")
    attention, ffn = (Fields(block.table(part) or {}, f"{block.where}.{part}") for part in ("attention", "ffn"))
    kv_heads = width = 0
    group = attention.optional_integer("n_heads_in_group", 1, _MAX_HEADS)
    if not attention.flag("no_op", False):
        group = group or 1
        if heads % group:
            attention.fail("n_heads_in_group", group, f"must divide num_attention_heads={heads}")
        kv_heads = heads // group
    factor = ffn.optional_number("ffn_mult", 1e-3, 1e3)
    plain = ffn.optional_integer("intermediate_size", 1, _MAX_WIDTH)
    if not ffn.flag("no_op", False):
        if factor is not None:
            plain = -(-int(2 * factor * hidden / 3) // _STEP) * _STEP
        width = plain or ffn.integer("intermediate_size", 1, _MAX_WIDTH)
    for part in (attention, ffn):
        part.refuse_unread((), _NEUTRAL)
    block.refuse_unread((), {})
    return LayerPart(kv_heads, width)
