"""Mamba 2 layers, as config.json says them: which they are, and their shape.

Called by architecture files for config.py. Does not know weights or graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from albireo.graph.op_numbers import MAX_CONV_WIDTH
from albireo.json_file import Fields

_MAX_HEADS = 2**12
_MAX_DIM = 2**10
#: What transformers writes in place of a number that JSON has no word for.
_INFINITY = {"__float__": "Infinity"}


@dataclass(frozen=True, slots=True)
class MambaSettings:
    """The selective state spaces of a model.

    Fields:
        layers: of each layer, whether it has one.
        heads, head_dim: heads of values, and channels of one. groups: heads of b and c, which those of values share in
            runs; state_size: channels of one.
        conv_width: rows that the convolution before it reads for one. has_conv_bias, has_bias: of the convolution, and
            of the projections around both.
        dt_limits: between which how long a token counts is held.
        has_norm: what is read of the states is normed, in as many parts as there are groups, behind its gate, or before
            it where norms_first says so. norm_eps: of that norm; None: that of others.
        factors: on gates, values, b, c and how long a token counts, before anything is done to them; out_factor: on
            what a layer adds.
    """

    layers: tuple[bool, ...]
    heads: int
    head_dim: int
    groups: int
    state_size: int
    conv_width: int
    has_conv_bias: bool
    has_bias: bool
    dt_limits: tuple[float, float] = (0.0, math.inf)
    has_norm: bool = True
    norms_first: bool = False
    factors: tuple[float, ...] = (1.0,) * 5
    out_factor: float = 1.0
    norm_eps: float | None = None

    @property
    def width(self) -> int:
        """Channels of values."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Of values, b and c together."""
        return self.width + 2 * self.groups * self.state_size

    @property
    def state_bytes(self) -> int:
        """Of one sequence, over all layers: rows of the convolutions, and the states, in float32."""
        return 4 * sum(self.layers) * ((self.conv_width - 1) * self.channels + self.width * self.state_size)


class MambaKeys(NamedTuple):
    """What an architecture calls the numbers of MambaSettings."""

    heads: str
    head_dim: str
    groups: str
    state_size: str
    conv_width: str
    conv_bias: str
    bias: str


#: What Granite, Falcon-H1 and Bamba call them, and what they mean where they are absent.
MAMBA_KEYS = MambaKeys(
    "mamba_n_heads",
    "mamba_d_head",
    "mamba_n_groups",
    "mamba_d_state",
    "mamba_d_conv",
    "mamba_conv_bias",
    "mamba_proj_bias",
)
MAMBA_DEFAULTS = MambaSettings((), 128, 0, 1, 256, 4, True, False)


def parse_mamba(
    fields: Fields,
    keys: MambaKeys,
    layers: tuple[bool, ...],
    defaults: MambaSettings,
    expand: str | None = None,
    width: str | None = None,
) -> MambaSettings | None:
    """Args: defaults: what absent keys mean. expand: the key of how many widths of the residual stream values have,
    which head_dim may follow from ("auto") and must agree with; None: nothing says so. width: a key of their channels,
    which decides where it is there.

    Returns: None where no layer keeps a state; such files may have the keys all the same.
    Raises: ModelError for a bad value.
    """
    heads = fields.integer(keys.heads, 1, _MAX_HEADS, default=defaults.heads)
    groups = fields.integer(keys.groups, 1, _MAX_HEADS, default=defaults.groups)
    if heads % groups:
        fields.fail(keys.heads, heads, f"must be a multiple of {keys.groups}={groups}")
    found = MambaSettings(
        layers,
        heads,
        _head_dim(fields, keys, heads, defaults, expand, width),
        groups,
        fields.integer(keys.state_size, 1, _MAX_DIM, default=defaults.state_size),
        fields.integer(keys.conv_width, 2, MAX_CONV_WIDTH, default=defaults.conv_width),
        fields.flag(keys.conv_bias, defaults.has_conv_bias),
        fields.flag(keys.bias, defaults.has_bias),
        _dt_limits(fields),
    )
    return found if any(layers) else None


def _head_dim(
    fields: Fields, keys: MambaKeys, heads: int, defaults: MambaSettings, expand: str | None, width: str | None
) -> int:
    if expand is None:
        return fields.integer(keys.head_dim, 1, _MAX_DIM, default=defaults.head_dim)
    hidden, given = fields.integer("hidden_size", 1, 2**20), fields.raw(keys.head_dim)
    channels = fields.integer(expand, 1, 64, default=2) * hidden
    said = f"{expand} * hidden_size"
    if width is not None and fields.raw(width) is not None:
        channels, said = fields.integer(width, 1, _MAX_HEADS * _MAX_DIM), width
    if given in (None, "auto") and channels % heads == 0:
        return channels // heads
    head_dim = fields.integer(keys.head_dim, 1, _MAX_DIM)
    if head_dim * heads != channels:
        fields.fail(keys.head_dim, head_dim, f"must make {said} = {channels} with {keys.heads}={heads}")
    return head_dim


def _dt_limits(fields: Fields) -> tuple[float, float]:
    given: Any = fields.raw("time_step_limit")
    if given is None:
        return 0.0, math.inf
    limits = [math.inf if n == _INFINITY else n for n in given] if isinstance(given, list) else []
    if len(limits) != 2 or any(type(n) not in (int, float) for n in limits) or not 0 <= limits[0] <= limits[1]:
        fields.fail("time_step_limit", given, "must be two numbers of at least 0, the smaller one first")
    return float(limits[0]), float(limits[1])
