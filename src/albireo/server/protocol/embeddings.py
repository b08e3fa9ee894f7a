"""/v1/embeddings: request and answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from albireo.server.protocol.fields import AtLeastOne, CacheSalt, Count, Id, Priority


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """input: a text, several, token ids, or several lists of them; None: not said."""

    input: str | list[str | Count | list[Count]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: AtLeastOne | None = None

    # names of PoolingParams
    pooling_type: Annotated[str, Meta(max_length=16)] | None = None
    use_activation: bool | None = None

    # how it is run
    priority: Priority | None = None
    cache_salt: CacheSalt | None = None
    request_id: Id | None = None
    add_special_tokens: bool | None = None

    # about the caller; it changes nothing here, in other servers neither
    user: Any = None

    # there is no such thing here: neutral values only
    truncate_prompt_tokens: Any = None


EMBEDDING_NEUTRAL: dict[str, tuple[Any, ...]] = {"truncate_prompt_tokens": ()}


class Embedding(msgspec.Struct):
    """One vector: numbers, or the base64 of their float32, little-endian."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    """The answer, one embedding an input, in order."""

    id: str
    created: int
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage
    object: str = "list"
