"""/v1/embeddings: request and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from albireo.server.protocol.fields import AtLeastOne, Count
from albireo.server.protocol.pooling import PoolingFields, PoolingUsage


class EmbeddingRequest(PoolingFields, kw_only=True):
    """input: a text, several, token ids, or several lists of them; None: not said."""

    input: str | list[str | Count | list[Count]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: AtLeastOne | None = None
    add_special_tokens: bool | None = None

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
