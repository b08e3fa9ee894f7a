"""Gates of conformers' convolutions: half the rows of a linear say how much of the other half there is.

Called by the families beside it. Source: Dauphin et al. 2017, Language Modeling with Gated Convolutional Networks.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.vision.encoder import EncoderSettings, linear


def gated(
    b: GraphBuilder, c: EncoderSettings, h: Value, name: str, module: str, width: int, has_bias: bool = True
) -> Value:
    """[T, width] of h. Args: name: of the convolution. module: what has the rows, those of the gate last."""
    up, gate = (
        linear(b, c, h, f"{name}.{part}", width, part, has_bias, (f"{name}.{module}", first))
        for part, first in (("up", 0), ("gate", width))
    )
    with b.part("mix"):
        return b.mul(up, b.unary(gate, "sigmoid"))
