"""GET /openapi.json and /docs: the protocol's schema, and the same as a page that fetches nothing from elsewhere."""

from __future__ import annotations

import html
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo import __version__
from albireo.server.protocol.anthropic import CountTokensRequest, MessageAnswer, MessagesRequest, TokenCount
from albireo.server.protocol.chat import ChatCompletion, ChatRequest
from albireo.server.protocol.completions import Completion, CompletionRequest
from albireo.server.protocol.embeddings import EmbeddingList, EmbeddingRequest
from albireo.server.protocol.responses import ResponseAnswer, ResponseRequest
from albireo.server.protocol.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest

#: (path, what it does, request, answer).
_POSTS = (
    ("/v1/completions", "Go on with a text.", CompletionRequest, Completion),
    ("/v1/chat/completions", "Answer a conversation.", ChatRequest, ChatCompletion),
    ("/v1/responses", "Answer a conversation, and keep the answer.", ResponseRequest, ResponseAnswer),
    ("/v1/messages", "Answer a conversation; Anthropic's protocol.", MessagesRequest, MessageAnswer),
    ("/v1/messages/count_tokens", "Tokens of a conversation.", CountTokensRequest, TokenCount),
    ("/v1/embeddings", "Texts to vectors.", EmbeddingRequest, EmbeddingList),
    ("/tokenize", "Text to token ids.", TokenizeRequest, Tokenized),
    ("/detokenize", "Token ids to text.", DetokenizeRequest, Detokenized),
)
_GETS = (
    ("/v1/models", "The models there are."),
    ("/v1/responses/{id}", "A response that is kept."),
    ("/v1/requests/{id}/explain", "Where the time of a request went."),
    ("/v1/stats", "What the engine is doing, as server-sent events."),
    ("/health", "Whether it serves, and gets on."),
    ("/version", "The version."),
    ("/metrics", "For Prometheus."),
)
_STYLE = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}td{padding:.1rem .8rem .1rem 0}"


def openapi() -> dict[str, Any]:
    """The schema, OpenAPI 3.1."""
    types = [kind for post in _POSTS for kind in post[2:]]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for (path, words, _, _), request, answer in zip(_POSTS, schemas[::2], schemas[1::2], strict=True):
        paths[path] = {
            "post": {
                "summary": words,
                "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
                "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}},
            }
        }
    for path, words in _GETS:
        operation: dict[str, Any] = {"summary": words, "responses": {"200": {"description": "OK"}}}
        if "{id}" in path:
            operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
        paths[path] = {"get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Albireo", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


class Docs:
    """Both endpoints."""

    def __init__(self) -> None:
        self._schema = openapi()

    async def schema(self, http: Request) -> Response:
        """The schema."""
        return Response(msgspec.json.encode(self._schema), media_type="application/json")

    async def page(self, http: Request) -> Response:
        """The schema for people."""
        return Response(_page(self._schema), media_type="text/html; charset=utf-8")


def _page(schema: dict[str, Any]) -> str:
    parts = [f"<!doctype html><html lang=en><title>Albireo</title><style>{_STYLE}</style><h1>Albireo</h1>"]
    parts.append("<p>The same as a schema: <a href=/openapi.json>openapi.json</a></p><h2>Routes</h2><table>")
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            words = html.escape(operation["summary"])
            parts.append(f"<tr><td>{method.upper()}<td><code>{html.escape(path)}</code><td>{words}")
    parts.append("</table><h2>Shapes</h2>")
    for name, shape in schema["components"]["schemas"].items():
        parts.append(f"<h3>{html.escape(name)}</h3><p>{html.escape(shape.get('description', ''))}</p><table>")
        for field, kind in shape.get("properties", {}).items():
            parts.append(f"<tr><td><code>{html.escape(field)}</code><td>{html.escape(_kind(kind))}")
        parts.append("</table>")
    return "".join(parts)


def _kind(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        return str(kind["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in kind:
        return " or ".join(_kind(each) for each in kind["anyOf"])
    if kind.get("type") == "array":
        return f"list of {_kind(kind.get('items', {}))}"
    return str(kind.get("type", "anything"))
