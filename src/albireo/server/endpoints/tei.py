"""POST /embed, /embed_all, /embed_sparse, /predict, /similarity, /rerank of texts, and /; GET /info: the protocol of
text-embeddings-inference.

What is asked is read as a request of our own routes. What does not fit is cut unless `truncate` is false, as there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from albireo import __version__
from albireo.api.requests.prompts import Prompt
from albireo.api.requests.scoring import Part, ScorePlan
from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.errors import EngineError
from albireo.server.body import ClientGone, parse, received_s, replayed
from albireo.server.endpoints import embeddings, pooled
from albireo.server.endpoints.pooling import Asked, Head, answered, values_of
from albireo.server.endpoints.scoring import computed
from albireo.server.endpoints.tei_tokens import TeiTokens
from albireo.server.errors import HttpError, refused, unsupported
from albireo.server.pooling_intake import admitted, begin, check_length, check_number, places_of, pooling_params
from albireo.server.protocol.embeddings import EmbeddingRequest
from albireo.server.protocol.pooled import PoolingRequest
from albireo.server.protocol.pooling import PoolingFields
from albireo.server.protocol.scoring import RerankRequest
from albireo.server.protocol.tei import (
    Info,
    PredictAsk,
    Predicted,
    Ranked,
    SimilarityAsk,
    TeiEmbedAllAsk,
    TeiEmbedAsk,
    TeiEmbedSparseAsk,
    TeiRerankAsk,
    Weight,
)
from albireo.server.scoring_intake import scored
from albireo.server.serving import Serving

A = TypeVar("A")

_FIELDS, _ENCODER = msgspec.json.Decoder(dict[str, msgspec.Raw]), msgspec.json.Encoder()
#: What its poolings are called there.
_POOLINGS = {"last": "last_token"}


class TeiEndpoint(Generic[A]):
    """An endpoint, as an ASGI application."""

    def __init__(
        self, serving: Serving, kind: type[A], read: Callable[[Serving, A], Awaitable[tuple[PoolingFields, Asked]]]
    ) -> None:
        """Args: kind: of a body; read: what it asks for, in our own words, and of the engine. Raises: HttpError."""
        self._serving, self._read = serving, read
        self._decoder: Any = msgspec.json.Decoder(kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request, asked = await self._read(serving, parse(body, self._decoder))
            await answered(serving, "tei", request, asked, arrival_s, scope, receive, send)
        except ClientGone:
            return
        except HttpError as error:
            if error.param == "input" and error.message.startswith("input"):
                error.message = f"inputs{error.message.removeprefix('input')}"
            await error.response("/embed")(scope, receive, send)


def routes(serving: Serving) -> dict[str, ASGIApp]:
    """What is asked by POST, but for /rerank, which other protocols have, too."""
    return {
        "/embed": TeiEndpoint(serving, TeiEmbedAsk, _embed),
        "/embed_all": TeiEndpoint(serving, TeiEmbedAllAsk, _embed_all),
        "/embed_sparse": TeiEndpoint(serving, TeiEmbedSparseAsk, _embed_sparse),
        "/predict": TeiEndpoint(serving, PredictAsk, _predict),
        "/similarity": TeiEndpoint(serving, SimilarityAsk, _similarity),
    }


class ByFields:
    """One route that several protocols have, or that is for whatever the model does: told by the body.

    An ASGI application.
    """

    def __init__(self, serving: Serving, choose: Callable[[Mapping[str, msgspec.Raw]], ASGIApp]) -> None:
        """Args: choose: by the fields of the body; none where it is no object, of which the endpoint tells."""
        self._serving, self._choose = serving, choose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._serving.bodies.read(scope, receive) as body:
                pass  # held by the endpoint, which reads it again
        except ClientGone:
            return
        try:
            given = _FIELDS.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            given = {}
        await self._choose(given)(scope, replayed(body, receive), send)


def rerank(serving: Serving, of_documents: ASGIApp) -> ByFields:
    """/rerank: of `texts` as there, of `documents` as Jina, Cohere and vLLM have it."""
    of_texts = TeiEndpoint(serving, TeiRerankAsk, _rerank)
    return ByFields(serving, lambda given: of_texts if "texts" in given else of_documents)


def tokenize(serving: Serving, of_prompts: ASGIApp) -> ByFields:
    """/tokenize: of `inputs` as there, else as vLLM and llama.cpp have it."""
    of_inputs = Route("/", TeiTokens(serving).tokenize, methods=["POST"]).app
    return ByFields(serving, lambda given: of_inputs if "inputs" in given else of_prompts)


def root(serving: Serving, others: Mapping[str, ASGIApp]) -> ByFields:
    """/: what the model does. Args: others: by their routes."""

    def choose(given: Mapping[str, msgspec.Raw]) -> ASGIApp:
        if "texts" in given:
            return others["/rerank"]
        if bytes(given.get("inputs", b"")).lstrip().startswith(b"{"):
            return others["/similarity"]
        if not serving.is_loaded:
            return others["/embed"]
        rule = serving.ready.pooling_rule
        return others["/predict" if rule.labels else "/embed_sparse" if rule.vocabulary else "/embed"]

    return ByFields(serving, choose)


def _cut(ask: Any) -> dict[str, Any]:
    """How long prompts become, as our own requests have it. Args: ask: None: nothing is said."""
    if ask is not None and ask.truncate is False:
        return {}
    direction = None if ask is None else ask.truncation_direction
    return {"truncate_prompt_tokens": -1, "truncation_side": direction and direction.lower()}


async def _embed(serving: Serving, ask: TeiEmbedAsk) -> tuple[PoolingFields, Asked]:
    scales = ask.normalize is not False
    said = {"model": ask.model, "input": ask.inputs, "prompt_name": ask.prompt_name, "dimensions": ask.dimensions}
    request = EmbeddingRequest(**said, use_activation=scales, **_cut(ask))  # type: ignore[arg-type]  # they fit
    return request, await embeddings.asked_of(serving, request, _lists)


async def _embed_all(serving: Serving, ask: TeiEmbedAllAsk) -> tuple[PoolingFields, Asked]:
    said: dict[str, Any] = {"model": ask.model, "input": ask.inputs, "prompt_name": ask.prompt_name, **_cut(ask)}
    request = PoolingRequest(**said, task="token_embed", use_activation=False)

    async def answer(made: list[Submission], head: Head, requests: list[Tracked]) -> Any:
        return await embeddings.data_of(None, requests, lambda _, values: values, pooled.widths_of(made, requests))

    return request, await pooled.asked_of(serving, request, answer)


async def _embed_sparse(serving: Serving, ask: TeiEmbedSparseAsk) -> tuple[PoolingFields, Asked]:
    said: dict[str, Any] = {"model": ask.model, "input": ask.inputs, "prompt_name": ask.prompt_name, **_cut(ask)}
    request = EmbeddingRequest(**said)
    begin(serving, request, task="embed")
    if serving.ready.pooling_rule.vocabulary is None:
        raise unsupported("model", serving.names[0], "its embeddings are not sparse; take /embed")
    return request, await embeddings.asked_of(serving, request, partial(_weights, serving))


async def _weights(serving: Serving, head: Head, requests: list[Tracked]) -> Any:
    # in a thread: a vocabulary has as many values as a hundred embeddings
    return await serving.in_thread(lambda: [weights_of(tracked.embedding or b"") for tracked in requests])


def weights_of(raw: bytes) -> msgspec.Raw:
    """Those that are not zero, as JSON. Args: raw: float32, little-endian, one of each entry."""
    import numpy as np

    values = np.frombuffer(raw, "<f4")
    places = np.flatnonzero(values)
    return msgspec.Raw(_ENCODER.encode(list(map(Weight, places.tolist(), values[places].tolist()))))


async def _lists(head: Head, requests: list[Tracked]) -> Any:
    return await embeddings.data_of(None, requests, lambda _, values: values)


async def _predict(serving: Serving, ask: PredictAsk) -> tuple[PoolingFields, Asked]:
    request = PoolingFields(model=ask.model, use_activation=False if ask.raw_scores else None, **_cut(ask))
    begin(serving, request, task="classify")
    for name, value in (ask.parameters or {}).items():
        if value is not None:
            raise unsupported(f"parameters.{name}", value)
    # as there: a list of one or two texts is one input, a list of such lists are several
    is_one = isinstance(ask.inputs, str) or all(isinstance(each, str) for each in ask.inputs)
    several: list[Any] = [ask.inputs] if is_one else list(ask.inputs)
    check_number(serving, "inputs", len(several))
    params, places = pooling_params(serving, request), places_of("inputs", len(several))
    making, num_chars = [], 0
    for place, each in zip(places, several, strict=True):
        texts = [each] if isinstance(each, str) else each
        if len(texts) not in (1, 2) or not all(texts):
            raise HttpError(
                400, f"{place} has {len(texts)} texts; give one, or two to be read together, none empty", param="inputs"
            )
        for text in texts:
            check_length(serving, request, place, text)
        making.append(partial(serving.admission.pooling.scored, tuple(map(Part, texts)), params))
        num_chars += sum(map(len, texts))
    submissions = await admitted(serving, request, making, places, num_chars)
    return request, Asked(submissions, places, partial(_labels, serving.ready.pooling_rule.labels, is_one))


async def _labels(labels: tuple[str, ...], is_one: bool, head: Head, requests: list[Tracked]) -> Any:
    found = []
    for tracked in requests:
        each = [Predicted(score, label) for score, label in zip(values_of(tracked), labels, strict=True)]
        found.append(sorted(each, key=lambda one: -one.score))
    return found[0] if is_one else found


async def _rerank(serving: Serving, ask: TeiRerankAsk) -> tuple[PoolingFields, Asked]:
    said = {"query": ask.query, "documents": list(ask.texts), "model": ask.model}
    request = RerankRequest(**said, use_activation=False if ask.raw_scores else None, **_cut(ask))  # type: ignore[arg-type]
    begin(serving, request)
    plan, submissions, places = await scored(serving, request, {"query": ask.query, "texts": [*ask.texts]})
    return request, Asked(submissions, places, partial(_ranked, serving, plan, ask))


async def _ranked(serving: Serving, plan: ScorePlan, ask: TeiRerankAsk, head: Head, requests: list[Tracked]) -> Any:
    found = await computed(serving, plan, requests)
    best = sorted(range(len(found)), key=lambda index: (-found[index], index))
    return [Ranked(index, found[index], ask.texts[index] if ask.return_text else None) for index in best]


async def _similarity(serving: Serving, ask: SimilarityAsk) -> tuple[PoolingFields, Asked]:
    request = RerankRequest(query="", documents=[], model=ask.model, **_cut(ask.parameters))
    begin(serving, request, task="embed")
    check_number(serving, "sentences", len(ask.inputs.sentences))
    name, pooling = None if ask.parameters is None else ask.parameters.prompt_name, serving.admission.pooling
    try:
        source, *others = (
            pooling.begun(Prompt(text, None), name).text or ""
            for text in (ask.inputs.source_sentence, *ask.inputs.sentences)
        )
    except EngineError as error:
        raise refused(error, "inputs") from None
    plan, submissions, places = await scored(serving, request, {"source_sentence": source, "sentences": [*others]})
    return request, Asked(submissions, places, partial(_similar, serving, plan))


async def _similar(serving: Serving, plan: ScorePlan, head: Head, requests: list[Tracked]) -> Any:
    return await computed(serving, plan, requests)


class TeiInfo:
    """GET /info."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def info(self, http: Request) -> Response:
        """What is served. Raises: HttpError 503 while it loads."""
        serving, ready = self._serving, self._serving.ready
        rule = ready.pooling_rule
        names: dict[str, Any] = {
            "id2label": {str(at): label for at, label in enumerate(rule.labels)},
            "label2id": {label: at for at, label in enumerate(rule.labels)},
        }
        pooling = "splade" if rule.vocabulary else _POOLINGS.get(rule.pooling_type, rule.pooling_type)
        kind = {"embedding": {"pooling": pooling}}
        if rule.labels:
            kind = {"reranker" if len(rule.labels) == 1 else "classifier": names}
        told = Info(
            model_id=serving.names[0],
            model_dtype=str(ready.engine["dtype"]),
            model_type=kind,
            max_concurrent_requests=serving.settings.max_num_queued_requests,
            max_input_length=ready.max_model_len,
            max_batch_tokens=ready.max_num_batched_tokens,
            max_client_batch_size=serving.settings.max_embedding_inputs,
            version=__version__,
        )
        return Response(msgspec.json.encode(told), media_type="application/json")
