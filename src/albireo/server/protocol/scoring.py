"""/score and /rerank: requests and answers. /score is vLLM's; /rerank has what Jina's, Cohere's and vLLM's share."""

from __future__ import annotations

from typing import Any

import msgspec

from albireo.server.protocol.fields import Count
from albireo.server.protocol.pooling import POOLING_NEUTRAL, PoolingFields, PoolingUsage


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """Texts and pictures, as parts of a message; or a document as an object, which has a text. One of both."""

    text: str | None = None
    content: list[dict[str, Any]] | str | None = None


Texts = str | Content | list[str | Content]


class ScoringFields(PoolingFields, kw_only=True):
    """max_tokens_per_query, max_tokens_per_doc: a first or second text is cut to so many; 0: it is not."""

    max_tokens_per_query: Count | None = None
    max_tokens_per_doc: Count | None = None

    # there is no such thing here: neutral values only
    instruction: Any = None
    chat_template_kwargs: Any = None


class ScoreRequest(ScoringFields, kw_only=True):
    """Both texts by one of the pairs of names: text_1 and text_2, queries and documents or items, data_1 and data_2. Of
    the first there is one for all, or one each."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None


class RerankDocument(msgspec.Struct, omit_defaults=True):
    """A document, as an answer has it: a text, or the parts of a content."""

    text: str | None = None
    multi_modal: list[dict[str, Any]] | None = None


class RerankRequest(ScoringFields, kw_only=True):
    """top_n: most results; 0: all. return_documents: false leaves their texts out."""

    query: str | Content
    documents: Texts
    top_n: Count | None = None
    return_documents: bool | None = None

    # there is no such thing here: neutral values only
    rank_fields: Any = None
    max_chunks_per_doc: Any = None


SCORING_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **POOLING_NEUTRAL,
    "instruction": ("",),
    "chat_template_kwargs": ({},),
}
RERANK_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **SCORING_NEUTRAL,
    # a document is its text
    "rank_fields": ([], ["text"]),
    # a document is not taken apart
    "max_chunks_per_doc": (1,),
}


class Score(msgspec.Struct):
    """How well the texts of one pair go together."""

    index: int
    score: float
    object: str = "score"


class ScoreList(msgspec.Struct):
    """The answer, one score a pair, in order."""

    id: str
    created: int
    model: str
    data: list[Score]
    usage: PoolingUsage
    object: str = "list"


class RerankResult(msgspec.Struct, omit_defaults=True):
    """A document's place among those of the request, and how well it goes with the query."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class Ranking(msgspec.Struct):
    """The answer, the best first; of equals the one that was given first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: PoolingUsage
