"""/v1/embeddings: request and answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from albireo.server.protocol.fields import AtLeastOne
from albireo.server.protocol.pooling import EncodedFields, PoolingUsage


class EmbeddingRequest(EncodedFields, kw_only=True):
    """None: not said."""

    dimensions: AtLeastOne | None = None


class Embedding(msgspec.Struct):
    """One vector: numbers, or the base64 of their bytes."""

    index: int
    embedding: Sequence[float] | str
    object: str = "embedding"


class EmbeddingList(msgspec.Struct):
    """The answer, one embedding an input, in order."""

    id: str
    created: int
    model: str
    data: list[Embedding]
    usage: PoolingUsage
    object: str = "list"
