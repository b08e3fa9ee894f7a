"""/v2/embed: Cohere's protocol, as vLLM has it: request and answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from albireo.server.protocol.fields import AtLeastOne, Priority

Texts = Annotated[list[str], Meta(min_length=1)]


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of an input."""

    type: Literal["text"]
    text: str


class MixedInput(msgspec.Struct, forbid_unknown_fields=True):
    """An input in parts, which are joined by newlines."""

    content: Annotated[list[TextPart], Meta(min_length=1)]


class TypedEmbedAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """None: not said.

    Fields:
        texts, inputs: what is embedded, one of both.
        input_type: what it is for; see endpoints/cohere_embed.py.
        embedding_types: how it is told; numbers where nothing is said.
        truncate: where a longer input is cut, END where nothing is said; max_tokens: to so many tokens.
    """

    model: str | None = None
    texts: Texts | None = None
    inputs: Annotated[list[MixedInput], Meta(min_length=1)] | None = None
    input_type: Annotated[str, Meta(max_length=64)] | None = None
    output_dimension: AtLeastOne | None = None
    embedding_types: list[str] | None = None
    truncate: Literal["NONE", "START", "END"] | None = None
    max_tokens: AtLeastOne | None = None
    priority: Priority | None = None

    # there is no such thing here: neutral values only
    images: Any = None


EMBED_NEUTRAL: dict[str, tuple[Any, ...]] = {"images": ([],)}


class ByType(msgspec.Struct, rename={"floats": "float"}):
    """Embeddings by how they are told, each a list with one of each input."""

    floats: Any = UNSET
    base64: list[str] | UnsetType = UNSET
    binary: list[list[int]] | UnsetType = UNSET
    ubinary: list[list[int]] | UnsetType = UNSET


class EmbedAnswer(msgspec.Struct):
    """texts: those of the request."""

    id: str
    embeddings: ByType
    texts: list[str]
    meta: dict[str, Any]
    response_type: str = "embeddings_by_type"
