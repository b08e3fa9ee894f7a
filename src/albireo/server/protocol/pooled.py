"""/pooling: request and answer. Shapes are vLLM's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from albireo.params import PoolingTaskName
from albireo.server.protocol.fields import AtLeastOne
from albireo.server.protocol.pooling import POOLING_NEUTRAL, EncodedFields, PoolingUsage


class PoolingRequest(EncodedFields, kw_only=True):
    """task: what becomes of a prompt; None: what the model does."""

    task: PoolingTaskName | None = None
    dimensions: AtLeastOne | None = None

    # there is no such thing here: neutral values only
    data: Any = None


#: Field -> values beside null that ask for nothing.
POOLED_NEUTRAL: dict[str, tuple[Any, ...]] = {**POOLING_NEUTRAL, "data": ()}


class Pooled(msgspec.Struct):
    """Of one input an embedding, or a score of each label: numbers, or base64 of their bytes. Where
    each token has its own: a list of them, or all of them, one token behind the other."""

    index: int
    data: Sequence[float | Sequence[float]] | str
    object: str = "pooling"


class PooledList(msgspec.Struct):
    """The answer, one an input, in order."""

    id: str
    created: int
    model: str
    data: list[Pooled]
    usage: PoolingUsage
    object: str = "list"
