"""/v1/embeddings: request and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from albireo.server.protocol.fields import AtLeastOne
from albireo.server.protocol.pooling import InputFields, PoolingUsage


class EmbeddingRequest(InputFields, kw_only=True):
    """None: not said."""

    encoding_format: Literal["float", "base64"] | None = None
    dimensions: AtLeastOne | None = None

    # there is no such thing here: neutral values only
    embed_dtype: Any = None
    endianness: Any = None


class Embedding(msgspec.Struct):
    """One vector: numbers, or the base64 of their float32, little-endian."""

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
