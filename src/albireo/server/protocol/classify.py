"""/classify: request and answer. Shapes are vLLM's."""

from __future__ import annotations

import msgspec

from albireo.server.protocol.pooling import InputFields, PoolingUsage


class ClassifyRequest(InputFields, kw_only=True):
    """None: not said."""


class Classes(msgspec.Struct):
    """Of one input. label: that of the largest; probs: in the order of the model's labels."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassList(msgspec.Struct):
    """The answer, the classes of each input, in order."""

    id: str
    created: int
    model: str
    data: list[Classes]
    usage: PoolingUsage
    object: str = "list"
