"""POST /score and /rerank."""

from __future__ import annotations

from array import array
from functools import partial

from albireo.api.requests.scoring import ScorePlan
from albireo.engine_process.tracked import Tracked
from albireo.server.endpoints.pooling import Asked, Head, PoolingEndpoint, values_of
from albireo.server.pooling_intake import begin
from albireo.server.protocol.scoring import (
    RERANK_NEUTRAL,
    SCORING_NEUTRAL,
    Content,
    Ranking,
    RerankDocument,
    RerankRequest,
    RerankResult,
    Score,
    ScoreList,
    ScoreRequest,
)
from albireo.server.scoring_intake import named_texts, scored
from albireo.server.serving import Serving

#: Values that are compared on the event loop; more, in a thread.
_INLINE_VALUES = 1 << 16


def scores(serving: Serving) -> PoolingEndpoint[ScoreRequest]:
    """The endpoint /score."""
    return PoolingEndpoint(serving, ScoreRequest, "score", _ask_scores)


def rankings(serving: Serving) -> PoolingEndpoint[RerankRequest]:
    """The endpoint /rerank."""
    return PoolingEndpoint(serving, RerankRequest, "rerank", _ask_ranking)


async def _ask_scores(serving: Serving, request: ScoreRequest) -> Asked:
    begin(serving, request, SCORING_NEUTRAL)
    plan, submissions, places = await scored(serving, request, named_texts(request))
    return Asked(submissions, places, partial(_scores, serving, plan))


async def _ask_ranking(serving: Serving, request: RerankRequest) -> Asked:
    begin(serving, request, RERANK_NEUTRAL)
    documents = request.documents if isinstance(request.documents, list) else [request.documents]
    plan, submissions, places = await scored(serving, request, {"query": request.query, "documents": documents})
    return Asked(submissions, places, partial(_ranking, serving, plan, request, documents))


async def _scores(serving: Serving, plan: ScorePlan, head: Head, requests: list[Tracked]) -> ScoreList:
    found = await computed(serving, plan, requests)
    data = [Score(index, score) for index, score in enumerate(found)]
    return ScoreList(head.id, head.created, head.model, data, head.usage)


async def _ranking(
    serving: Serving,
    plan: ScorePlan,
    request: RerankRequest,
    documents: list[str | Content],
    head: Head,
    requests: list[Tracked],
) -> Ranking:
    found = await computed(serving, plan, requests)
    best = sorted(range(len(found)), key=lambda index: (-found[index], index))[: request.top_n or None]
    shows = request.return_documents is not False
    results = [RerankResult(i, found[i], _shown(documents[i]) if shows else None) for i in best]
    return Ranking(head.id, head.model, results, head.usage)


def _shown(given: str | Content) -> RerankDocument:
    if isinstance(given, str):
        return RerankDocument(given)
    if isinstance(given.content, list):
        return RerankDocument(None, given.content)
    return RerankDocument(given.text if given.content is None else given.content)


async def computed(serving: Serving, plan: ScorePlan, requests: list[Tracked]) -> list[float]:
    """The scores, of what came of the prompts of a plan."""
    raws = [tracked.embedding or b"" for tracked in requests]
    # of each token, or of each entry of a vocabulary, there are far more than of whole texts: they stay as they are
    if not plan.width and max(len(raws), len(plan.pairs)) * len(raws[0]) // 4 <= _INLINE_VALUES:
        return list(plan.scores([values_of(tracked) for tracked in requests]))
    return await serving.in_thread(lambda: list(plan.scores([array("f", raw) for raw in raws])))
