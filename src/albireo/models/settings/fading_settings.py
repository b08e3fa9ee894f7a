"""Layers that keep a state by lightning attention, as config.json says them: which they are, at what rates heads
forget, and what is multiplied where blocks are added.

Called by architecture files for config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.json_file import Fields
from albireo.models.settings.layer_kinds import MAX_LAYERS, layer_kinds

#: What files call a layer, as a number.
_NUMBERS = {0: "linear_attention", 1: "full_attention"}
_MAX_HEADS, _MAX_DIM = 2**12, 2**10
#: Powers of two that the rates of a layer's heads span, and what keeps the last layer's above zero.
_SPAN, _LEAST = 8, 1e-5


@dataclass(frozen=True, slots=True)
class FadingSettings:
    """States that each token leaves at a rate of the head alone.

    Fields:
        layers: of each layer, whether it has one; the others have attention.
        heads, head_dim: of queries, keys and values alike.
        of_states, of_attention, of_ffns: what a block's normed input, and what the block makes of it, are multiplied by
            before they are added.
    """

    layers: tuple[bool, ...]
    heads: int
    head_dim: int
    of_states: tuple[float, float]
    of_attention: tuple[float, float]
    of_ffns: tuple[float, float]

    @property
    def state_bytes(self) -> int:
        """Of one sequence, over all layers, in float32."""
        return 4 * sum(self.layers) * self.heads * self.head_dim**2

    def slopes(self, layer: int) -> tuple[float, ...]:
        """Of each head, s: a token leaves exp(-s) of what was there.

        Source: MiniMax 2025, MiniMax-01: the powers of ALiBi, which layers have ever less of.
        """
        part = 1 - layer / (len(self.layers) - 1 + _LEAST) + _LEAST
        return tuple(2.0 ** (-_SPAN * (head + 1) / self.heads) * part for head in range(self.heads))


def parse_fading(fields: Fields) -> FadingSettings:
    """Raises: ModelError for a bad value, UnsupportedModel for a kind of layer that is not computed."""
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    heads = fields.integer("num_attention_heads", 1, _MAX_HEADS)
    head_dim = fields.optional_integer("head_dim", 1, _MAX_DIM)
    if head_dim is None:
        head_dim = max(1, fields.integer("hidden_size", 1, 2**20) // heads)
    return FadingSettings(
        tuple(kind == _NUMBERS[0] for kind in _kinds(fields, layers)),
        heads,
        head_dim,
        _factors(fields, "linear_attn"),
        _factors(fields, "full_attn"),
        _factors(fields, "mlp"),
    )


def _kinds(fields: Fields, layers: int) -> tuple[str, ...]:
    """As layer_types says, or numbers; else every other layer from the second on keeps a state."""
    kinds, numbers = layer_kinds(fields, layers, tuple(_NUMBERS.values())), fields.raw("attn_type_list")
    if numbers is None:
        return kinds or tuple(_NUMBERS[1 - i % 2] for i in range(layers))
    is_list = isinstance(numbers, list) and all(type(each) is int and each in _NUMBERS for each in numbers)
    if not is_list or len(numbers) != layers:
        fields.fail("attn_type_list", numbers, f"must be a list of 0 and 1, one for each of {layers} layers")
    said = tuple(_NUMBERS[each] for each in numbers)
    if kinds and kinds != said:
        fields.fail("attn_type_list", numbers, "contradicts layer_types; keep one")
    return said


def _factors(fields: Fields, block: str) -> tuple[float, float]:
    of_input, of_block = (fields.number(f"{block}_{part}_factor", 1e-3, 1e3, default=1.0) for part in ("alpha", "beta"))
    return of_input, of_block
