"""Mamba 1 layers, as config.json says them: which they are, and their shape.

Called by architecture files for config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from albireo.graph.op_numbers import MAX_CONV_WIDTH
from albireo.json_file import Fields
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS

_MAX_WIDTH = 2**20
_MAX_EXPAND = 64
#: Numbers of a channel's state, at most: kernels keep a row of them for each of some channels at hand.
_MAX_STATE = 2**8

#: What is done to b, c and how long a token counts before they are used: nothing, a norm each, or one with a weight.
Norms = Literal["none", "plain", "weighed"]


@dataclass(frozen=True, slots=True)
class Mamba1Settings:
    """The selective state spaces of a model, of each channel by itself.

    Fields:
        layers: of each layer, whether it has one.
        width: channels of values. state_size: numbers that each of them keeps.
        rank: channels that how long a token counts for each of them is made of.
        conv_width: rows that the convolution before it reads for one. has_conv_bias, has_bias: of the convolution, and
            of the projections around both.
        norms: see Norms. norm_eps: of those; None: that of others.
    """

    layers: tuple[bool, ...]
    width: int
    state_size: int
    rank: int
    conv_width: int
    has_conv_bias: bool
    has_bias: bool
    norms: Norms = "none"
    norm_eps: float | None = None

    @property
    def state_bytes(self) -> int:
        """Of one sequence, over all layers: rows of the convolutions, and the states, in float32."""
        return 4 * sum(self.layers) * (self.conv_width - 1 + self.state_size) * self.width


class Mamba1Keys(NamedTuple):
    """What an architecture calls the numbers of Mamba1Settings."""

    state_size: str
    conv_width: str
    expand: str
    rank: str
    conv_bias: str
    bias: str


#: What the models that have nothing else call them.
MAMBA1_KEYS = Mamba1Keys("state_size", "conv_kernel", "expand", "time_step_rank", "use_conv_bias", "use_bias")


def parse_mamba1(
    fields: Fields, keys: Mamba1Keys, layers: tuple[bool, ...], norms: Norms, norm_eps: float | None = None
) -> Mamba1Settings | None:
    """Returns: None where no layer keeps a state; such files may have the keys all the same.

    Raises: ModelError for a bad value.
    """
    hidden = fields.integer("hidden_size", 1, _MAX_WIDTH)
    rank = -(-hidden // 16)
    if fields.raw(keys.rank) not in (None, "auto"):
        rank = fields.integer(keys.rank, 1, _MAX_WIDTH)
    found = Mamba1Settings(
        layers,
        _states_width(fields)
        if keys is MAMBA1_KEYS
        else fields.integer(keys.expand, 1, _MAX_EXPAND, default=2) * hidden,
        fields.integer(keys.state_size, 1, _MAX_STATE, default=16),
        rank,
        fields.integer(keys.conv_width, 2, MAX_CONV_WIDTH, default=4),
        fields.flag(keys.conv_bias, True),
        fields.flag(keys.bias, False),
        norms,
        norm_eps,
    )
    return found if any(layers) else None


def states_alone(fields: Fields) -> BlockSettings:
    """Of a model whose layers are nothing else: what is called an FFN's width is how many channels values have."""
    return BlockSettings(ffn_width=_states_width(fields), has_rotation=False)


def _states_width(fields: Fields) -> int:
    """Channels of values. Falcon Mamba 7B says both, and expand of something else."""
    hidden = fields.integer("hidden_size", 1, _MAX_WIDTH)
    width = fields.integer("expand", 1, _MAX_EXPAND, default=2) * hidden
    return fields.integer("intermediate_size", 1, _MAX_WIDTH, default=width)


def all_layers(fields: Fields) -> tuple[bool, ...]:
    """That each layer keeps a state."""
    return (True,) * fields.integer("num_hidden_layers", 1, MAX_LAYERS)
