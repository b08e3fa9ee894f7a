"""POST /api/embed and /api/embeddings: Ollama's protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.engine_process.tracked import Tracked
from albireo.server.body import WAITED, ClientGone, parse, received_s
from albireo.server.dialects import ollama as dialect
from albireo.server.dialects.ollama_options import check_pooled, options_of
from albireo.server.endpoints.embeddings import asked_of, data_of
from albireo.server.endpoints.ollama_asked import all_names, begin, nanoseconds, only_kept
from albireo.server.endpoints.pooling import Head, answered
from albireo.server.protocol.embeddings import EmbeddingRequest
from albireo.server.protocol.ollama import EmbedAsk, Embedded, EmbeddedOne, EmbeddingAsk, Options
from albireo.server.serving import Serving

A = TypeVar("A", EmbedAsk, EmbeddingAsk)
_EMBED, _EMBEDDING = msgspec.json.Decoder(EmbedAsk), msgspec.json.Decoder(EmbeddingAsk)


class Embeddings(Generic[A]):
    """An endpoint, as an ASGI application."""

    def __init__(
        self,
        serving: Serving,
        decoder: msgspec.json.Decoder[A],
        said: Callable[[A], Any],
        read: Callable[[A, Options], EmbeddingRequest],
        tell: Callable[[str, list[Any], Head | None], msgspec.Struct],
    ) -> None:
        """Args: said: of a request, what is to be embedded; read: the same in another protocol; tell: the answer, of
        the model's name and what there is."""
        self._serving, self._tell = serving, tell
        self._decoder: msgspec.json.Decoder[A] = decoder
        self._said: Callable[[A], Any] = said
        self._read: Callable[[A, Options], EmbeddingRequest] = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                ask = parse(body, self._decoder)
                name = ask.model or serving.names[0]
                if not self._said(ask):
                    await only_kept(serving, ask, scope)
                    nothing = msgspec.json.encode(self._tell(name, [], None))
                    await Response(nothing, media_type="application/json")(scope, receive, send)
                    return
                begin(serving, ask, scope)
                options = options_of(ask.options, serving.ready.max_model_len)
                check_pooled(options)
                request = self._read(ask, options)
                request.model = dialect.plain_name(ask.model, all_names(serving))
                admitted = await asked_of(serving, request, partial(self._answer, name))
            await answered(serving, "ollama", request, admitted, arrival_s, scope, receive, send)
        except ClientGone:
            return

    async def _answer(self, name: str, head: Head, requests: list[Tracked]) -> msgspec.Struct:
        return self._tell(name, await data_of(None, requests, lambda index, values: values), head)


def embed(serving: Serving) -> Embeddings[EmbedAsk]:
    """/api/embed."""
    return Embeddings(serving, _EMBED, lambda ask: ask.input, _several, _told)


def embedding(serving: Serving) -> Embeddings[EmbeddingAsk]:
    """/api/embeddings."""
    return Embeddings(serving, _EMBEDDING, lambda ask: ask.prompt, _one, _told_of_one)


def _several(ask: EmbedAsk, options: Options) -> EmbeddingRequest:
    most = None if ask.truncate is False else options.num_ctx or -1
    given: Any = ask.input
    return EmbeddingRequest(input=given, dimensions=ask.dimensions, truncate_prompt_tokens=most)


def _one(ask: EmbeddingAsk, options: Options) -> EmbeddingRequest:
    return EmbeddingRequest(input=ask.prompt, truncate_prompt_tokens=options.num_ctx or -1, use_activation=False)


def _told(model: str, values: list[Any], head: Head | None) -> Embedded:
    if head is None:
        return Embedded(model, values)
    timings, waited_s = head.generation.account.timings(), head.generation.scope.get(WAITED, 0.0)
    load_s = waited_s + timings["restart_s"]
    return Embedded(model, values, nanoseconds(timings["wall_s"]), nanoseconds(load_s), head.usage.prompt_tokens)


def _told_of_one(model: str, values: list[Any], head: Head | None) -> EmbeddedOne:
    return EmbeddedOne(values[0] if values else [])
