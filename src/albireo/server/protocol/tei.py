"""Routes of text-embeddings-inference (TEI): requests and answers.

Shapes are its OpenAPI document's. `model` is our own: of several models it says which.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from albireo.server.protocol.fields import AtLeastOne, Count

#: A text, or a pair of texts.
OneOrPair = str | list[str]


class TeiFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """truncate: false: what does not fit is refused; else it is cut."""

    model: str | None = None
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None


class NamedFields(TeiFields, kw_only=True):
    """prompt_name: of what the model's files say that such texts begin with. inputs: a text, several, token ids, or
    several lists of them."""

    inputs: str | list[str | Count | list[Count]]
    prompt_name: Annotated[str, Meta(max_length=256)] | None = None


class TeiEmbedAsk(NamedFields, kw_only=True):
    """normalize: false: as long as they come. dimensions: the first so many values."""

    normalize: bool | None = None
    dimensions: AtLeastOne | None = None


class TeiEmbedAllAsk(NamedFields, kw_only=True):
    """Of each token; as long as they come."""


class TeiEmbedSparseAsk(NamedFields, kw_only=True):
    """Of models whose embeddings are weights of the vocabulary."""


class Weight(msgspec.Struct):
    """Of one entry of the vocabulary, by its id."""

    index: int
    value: float


class PredictAsk(TeiFields, kw_only=True):
    """inputs: a text, a pair as a list of two, or a list of such lists of one or two. raw_scores: before they are made
    probabilities."""

    inputs: str | list[OneOrPair]
    raw_scores: bool | None = None

    # huggingface_hub sends it; there is nothing in it that is done
    parameters: dict[str, Any] | None = None


class TeiRerankAsk(TeiFields, kw_only=True):
    """raw_scores: as of /predict. return_text: results have their texts."""

    query: str
    texts: list[str]
    raw_scores: bool | None = None
    return_text: bool | None = None


class Compared(msgspec.Struct, forbid_unknown_fields=True):
    """What is compared with what."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """As of /embed."""

    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None
    prompt_name: Annotated[str, Meta(max_length=256)] | None = None


class SimilarityAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How near each of some texts is to one."""

    inputs: Compared
    parameters: SimilarityParameters | None = None
    model: str | None = None


class TeiTokenizeAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """prompt_name: as of embeddings."""

    inputs: str | Annotated[list[str], Meta(min_length=1)]
    add_special_tokens: bool | None = None
    prompt_name: Annotated[str, Meta(max_length=256)] | None = None
    model: str | None = None


class SimpleToken(msgspec.Struct):
    """A token. start, stop: bytes of the text's UTF-8; null of one that is put round it or stands for itself."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


class TeiDecodeAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """ids: of one text, or lists of several. skip_special_tokens: so unless it is false."""

    ids: Annotated[list[Count | list[Count]], Meta(min_length=1)]
    skip_special_tokens: bool | None = None
    model: str | None = None


class Predicted(msgspec.Struct):
    """A label of a text, and how likely it is."""

    score: float
    label: str


class Ranked(msgspec.Struct, omit_defaults=True):
    """A text's place among those of the request, and how well it goes with the query."""

    index: int
    score: float
    text: str | None = None


class Info(msgspec.Struct, kw_only=True):
    """What is served. model_type: {"embedding": …}, {"reranker": …} or {"classifier": …}."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool = True
    tokenization_workers: int = 1
    version: str
    sha: str | None = None
    docker_label: str | None = None
