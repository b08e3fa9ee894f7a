"""Layers with a recurrent state in place of attention, as config.json says them: which they are, and their shape.

Called by config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albireo.graph.ops import MAX_CONV_WIDTH
from albireo.json_file import Fields

_MAX_HEADS = 2**12
_MAX_DIM = 2**10
#: Whether some layers keep a state, and how what they read lies; see lies_by_head.
RecurrentRule = Literal["none", "by_part", "by_head"]
_KINDS = ("linear_attention", "full_attention")


@dataclass(frozen=True, slots=True)
class RecurrentSettings:
    """The gated delta rule of a model.

    Fields:
        layers: of each layer, whether it keeps a state; the others have attention.
        k_heads, k_dim: heads of queries and keys, and channels of one; v_heads, v_dim: of values.
        conv_width: rows that the convolution before it reads for one.
        lies_by_head: queries, keys, values and gates of values lie in one tensor, head of keys by head of keys (its
            query, its key, its values, their gates), and so do b and a.
    """

    layers: tuple[bool, ...]
    k_heads: int
    v_heads: int
    k_dim: int
    v_dim: int
    conv_width: int
    lies_by_head: bool

    @property
    def channels(self) -> int:
        """Of queries, keys and values together."""
        return 2 * self.k_heads * self.k_dim + self.v_heads * self.v_dim

    @property
    def state_bytes(self) -> int:
        """Of one sequence, over all layers: rows of the convolutions, and the states, in float32."""
        numbers = (self.conv_width - 1) * self.channels + self.v_heads * self.k_dim * self.v_dim
        return 4 * sum(self.layers) * numbers


def parse_recurrent(fields: Fields, rule: RecurrentRule, layers: int) -> RecurrentSettings | None:
    """Read the keys of Qwen 3 Next and 3.5. Returns: None for an architecture without.

    Raises: ModelError for a bad value, UnsupportedModel for a kind of layer that is not computed.
    """
    if rule == "none":
        return None
    k_heads = fields.integer("linear_num_key_heads", 1, _MAX_HEADS, default=16)
    v_heads = fields.integer("linear_num_value_heads", 1, _MAX_HEADS, default=32)
    if v_heads % k_heads:
        fields.fail("linear_num_value_heads", v_heads, f"must be a multiple of linear_num_key_heads={k_heads}")
    return RecurrentSettings(
        _recurrent_layers(fields, layers),
        k_heads,
        v_heads,
        fields.integer("linear_key_head_dim", 1, _MAX_DIM, default=128),
        fields.integer("linear_value_head_dim", 1, _MAX_DIM, default=128),
        fields.integer("linear_conv_kernel_dim", 2, MAX_CONV_WIDTH, default=4),
        rule == "by_head",
    )


def _recurrent_layers(fields: Fields, layers: int) -> tuple[bool, ...]:
    """As layer_types says, else all but each so many-th."""
    interval = fields.integer("full_attention_interval", 1, 2**12, default=4)
    kinds = fields.texts("layer_types")
    for kind in kinds:
        if kind not in _KINDS:
            fields.unsupported("layer_types", kind, f"supported: {', '.join(_KINDS)}")
    if kinds and len(kinds) != layers:
        fields.fail("layer_types", list(kinds), f"has {len(kinds)} entries for num_hidden_layers={layers}")
    found = tuple(kind == _KINDS[0] for kind in kinds) or tuple(bool((i + 1) % interval) for i in range(layers))
    if all(found):
        fields.unsupported("layer_types", list(kinds) or interval, "no layer has attention, whose cache counts tokens")
    return found
