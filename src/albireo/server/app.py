"""The application: its routes, and what an unknown one gets.

Made by run.py. Does not know sockets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from albireo.server.batches.runner import Batches
from albireo.server.endpoints import llama_cpp, ollama, tei
from albireo.server.endpoints.adapters import AdapterEndpoints
from albireo.server.endpoints.batches import BatchEndpoints
from albireo.server.endpoints.chat import chat
from albireo.server.endpoints.chat_batch import chat_batch
from albireo.server.endpoints.classify import classes
from albireo.server.endpoints.cohere_embed import CohereEmbed
from albireo.server.endpoints.completions import completions
from albireo.server.endpoints.conversations import Conversations
from albireo.server.endpoints.docs import Docs
from albireo.server.endpoints.embeddings import embeddings
from albireo.server.endpoints.files import FileEndpoints, Upload
from albireo.server.endpoints.generate import Render, generate
from albireo.server.endpoints.invocations import Invocations
from albireo.server.endpoints.llama_cpp_told import LlamaTold
from albireo.server.endpoints.messages import TokenCounts, messages
from albireo.server.endpoints.ollama_embed import embed, embedding
from albireo.server.endpoints.ollama_models import OllamaModels
from albireo.server.endpoints.page import ASSETS, Page
from albireo.server.endpoints.pause import Pause
from albireo.server.endpoints.pooled import pooled
from albireo.server.endpoints.prefix_cache import PrefixCache
from albireo.server.endpoints.responses import Responses
from albireo.server.endpoints.scoring import rankings, scores
from albireo.server.endpoints.sleep import Sleep
from albireo.server.endpoints.status import Stats, Status
from albireo.server.endpoints.stored_responses import StoredResponses
from albireo.server.endpoints.tei_tokens import TeiTokens
from albireo.server.endpoints.tokens import Tokens
from albireo.server.endpoints.transcriptions import Transcriptions
from albireo.server.errors import HttpError
from albireo.server.guard import Guard
from albireo.server.origins import WithoutStrangers, behind_origins
from albireo.server.response_store import ResponseStore
from albireo.server.root_path import BelowRoot
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings


def routes(serving: Serving, batches: Batches | None = None, responses: ResponseStore | None = None) -> list[Route]:
    """All there are. Args: batches: None: a server without; their routes say so. responses: None: its own store."""
    responses = ResponseStore() if responses is None else responses
    status, tokens, adapters = Status(serving), Tokens(serving), AdapterEndpoints(serving)
    docs = Docs(serving.settings.root_path)
    sleep, creating, stored = Sleep(serving), Responses(serving, responses), StoredResponses(serving, responses)
    of_texts, of_chats, of_messages = completions(serving), chat(serving), messages(serving)
    asked: dict[str, ASGIApp] = {
        "/v1/completions": of_texts,
        "/v1/chat/completions": of_chats,
        "/v1/completions/render": Render(of_texts, "cmpl", tells_several=True),
        "/v1/chat/completions/render": Render(of_chats, "chatcmpl"),
        "/v1/messages/render": Render(of_messages, "msg"),
        "/inference/v1/generate": generate(serving),
        "/v1/chat/completions/batch": chat_batch(serving),
        "/v1/embeddings": embeddings(serving),
        "/v2/embed": CohereEmbed(serving),
        "/classify": classes(serving),
        "/pooling": pooled(serving),
        **dict.fromkeys(("/score", "/v1/score"), scores(serving)),
        **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), rankings(serving)),
    }
    of_tei = tei.routes(serving)
    reranked = tei.rerank(serving, asked["/rerank"])
    asked |= {"/rerank": reranked, **of_tei, "/": tei.root(serving, {**of_tei, "/rerank": reranked})}
    pause, conversations = Pause(serving), Conversations(serving, responses)
    files, batch = FileEndpoints(batches), BatchEndpoints(serving, batches)
    return [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in asked.items()),
        Route("/invocations", Invocations(serving, asked), methods=["POST"]),
        Route("/v1/messages", of_messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", TokenCounts(serving).count, methods=["POST"]),
        Route("/api/chat", ollama.chat(serving), methods=["POST"]),
        Route("/api/generate", ollama.generate(serving), methods=["POST"]),
        Route("/api/embed", embed(serving), methods=["POST"]),
        Route("/api/embeddings", embedding(serving), methods=["POST"]),
        *OllamaModels(lambda: [serving]).routes(),
        Route("/completion", llama_cpp.completion(serving), methods=["POST"]),
        Route("/infill", llama_cpp.infill(serving), methods=["POST"]),
        *LlamaTold(serving).routes(),
        Route("/v1/responses", creating, methods=["POST"]),
        Route("/v1/responses/input_tokens", creating.count, methods=["POST"]),
        Route("/v1/conversations", conversations.create, methods=["POST"]),
        Route("/v1/conversations/{name}", conversations.one, methods=["GET", "POST", "DELETE"]),
        Route("/v1/conversations/{name}/items", conversations.items, methods=["GET", "POST"]),
        Route("/v1/conversations/{name}/items/{item}", conversations.item, methods=["GET", "DELETE"]),
        Route("/v1/responses/{name}", stored.one, methods=["GET", "DELETE"]),
        Route("/v1/responses/{name}/cancel", stored.cancel, methods=["POST"]),
        Route("/v1/audio/transcriptions", Transcriptions(serving, "transcribe"), methods=["POST"]),
        Route("/v1/audio/translations", Transcriptions(serving, "translate"), methods=["POST"]),
        Route("/v1/files", Upload(batches), methods=["POST"]),
        Route("/v1/files", files.list),
        Route("/v1/files/{name}", files.one, methods=["GET", "DELETE"]),
        Route("/v1/files/{name}/content", files.content),
        Route("/v1/batches", batch.create, methods=["POST"]),
        Route("/v1/batches", batch.list),
        Route("/v1/batches/{name}", batch.one),
        Route("/v1/batches/{name}/cancel", batch.cancel, methods=["POST"]),
        Route("/v1/load_lora_adapter", adapters.load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", adapters.unload, methods=["POST"]),
        Route("/tokenize", tei.tokenize(serving, Route("/", tokens.tokenize, methods=["POST"]).app), methods=["POST"]),
        Route("/decode", TeiTokens(serving).decode, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
        Route("/tokenizer_info", tokens.info),
        Route("/sleep", sleep.sleep, methods=["POST"]),
        Route("/wake_up", sleep.wake_up, methods=["POST"]),
        Route("/is_sleeping", sleep.is_sleeping),
        Route("/pause", pause.pause, methods=["POST"]),
        Route("/resume", pause.resume, methods=["POST"]),
        Route("/is_paused", pause.is_paused),
        *(Route(path, pause.abort, methods=["POST"]) for path in ("/abort_requests", "/inference/v1/abort_requests")),
        Route("/reset_prefix_cache", PrefixCache(serving).reset, methods=["POST"]),
        Route("/v1/models", status.models),
        Route("/v1/models/{name:path}", status.model),
        Route("/v1/requests/{name:path}/explain", status.explain),
        Route("/v1/stats", Stats(serving), methods=["GET"]),
        Route("/health", status.health),
        Route("/ping", status.ping, methods=["GET", "POST"]),
        Route("/load", status.load),
        Route("/version", status.version),
        Route("/info", tei.TeiInfo(serving).info),
        Route("/metrics", status.metrics),
        Route("/openapi.json", docs.schema),
        Route("/docs", docs.page),
        *(Route(path, Page(path).file) for path in ASSETS),
    ]


def application(serving: Serving, batches: Batches | None = None) -> ASGIApp:
    """The routes behind the guard, as pages may ask them; lines of batches have passed it already, as whole files."""
    app = behind_errors(routes(serving, batches))
    if batches is not None:
        batches.use(Guard(app, (), (), serving.settings.log_requests))
    return guarded(app, serving.settings)


def behind_errors(of: Sequence[Route]) -> Starlette:
    """Routes, with what goes wrong as an answer."""
    app = Starlette(routes=of, exception_handlers={HTTPException: _no_route, HttpError: _http_error})
    app.router.redirect_slashes = False
    return app


def guarded(app: ASGIApp, settings: ServerSettings) -> ASGIApp:
    """An application for who may ask."""
    inner = Guard(
        WithoutStrangers(app, settings.allowed_origins), settings.api_key, ("/health", *ASSETS), settings.log_requests
    )
    # outside: a browser asks whether a page may ask without the key
    outer = behind_origins(inner, settings.allowed_origins)
    return BelowRoot(outer, settings.root_path) if settings.root_path else outer


async def _no_route(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    if error.status_code == 404:
        return _another_route(http)
    what = {405: "this route has no such method"}.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # several routes may have the path, each with some of its methods
        fitting = [each for each in http.app.routes if each.matches(http.scope)[0] is not Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for each in fitting for method in each.methods or ()}))
    return HttpError(error.status_code, what, headers=headers).response(http.url.path)


def _another_route(http: Request) -> Response:
    """There is none of this path. One with a slash at its end leads to the one without; of a base URL with /v1 where it
    is to have none, or without it, the answer says where the route is."""
    path = re.sub("/+", "/", http.scope["path"])
    if path != "/" and path.endswith("/") and _is_route(http, path[:-1]):
        query = http.scope["query_string"].decode("latin-1")
        # relative, since a proxy may have put a path before this one; but for slashes that are too many in its midst
        place = "../" + quote(path.split("/")[-2]) if path == http.scope["path"] else quote(path[:-1])
        return Response(status_code=307, headers={"Location": place + (query and f"?{query}")})
    near = (path, path.rstrip("/"), f"/v1{path}", path.removeprefix("/v1"))
    found = next((each for each in near if each != "/" and _is_route(http, each)), None)
    hint = "" if found is None else f"; there is {found}: a client's base URL may have /v1 in excess, or lack it"
    return HttpError(404, f"there is no such route{hint}").response(http.url.path)


def _is_route(http: Request, path: str) -> bool:
    scope = {**http.scope, "path": path}
    return any(each.matches(scope)[0] is not Match.NONE for each in http.app.routes)


async def _http_error(http: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError), "registered for it"
    return error.response(http.url.path)
