"""GET /openapi.json and /docs: the protocol's schema, and the same as a page that fetches nothing from elsewhere."""

from __future__ import annotations

import html
import re
from functools import cached_property
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo import __version__
from albireo.server.endpoints.llama_cpp_told import REFUSED as LLAMA_REFUSED
from albireo.server.endpoints.ollama_models import REFUSED
from albireo.server.endpoints.pause import AbortAsk
from albireo.server.protocol.adapters import LoadAdapterRequest, UnloadAdapterRequest
from albireo.server.protocol.anthropic import CountTokensRequest, MessageAnswer, MessagesRequest, TokenCount
from albireo.server.protocol.batches import Batch, BatchList, BatchRequest, FileList, FileObject
from albireo.server.protocol.batches import Deleted as DeletedFile
from albireo.server.protocol.chat import ChatBatchRequest, ChatCompletion, ChatRequest
from albireo.server.protocol.classify import ClassifyRequest, ClassList
from albireo.server.protocol.cohere import EmbedAnswer, TypedEmbedAsk
from albireo.server.protocol.completions import Completion, CompletionRequest
from albireo.server.protocol.conversations import (
    ConversationAsk,
    ConversationChange,
    ConversationDeleted,
    ConversationTold,
    ItemList,
    MoreItems,
)
from albireo.server.protocol.embeddings import EmbeddingList, EmbeddingRequest
from albireo.server.protocol.generate import GenerateTokensAsk, Rendered, TokensAnswer
from albireo.server.protocol.llama_cpp import AppliedTemplate, Completed, CompletionAsk, InfillAsk
from albireo.server.protocol.ollama import (
    ChatAnswered,
    ChatAsk,
    EmbedAsk,
    Embedded,
    EmbeddedOne,
    EmbeddingAsk,
    GenerateAnswered,
    GenerateAsk,
)
from albireo.server.protocol.pooled import PooledList, PoolingRequest
from albireo.server.protocol.responses import Deleted, InputTokens, ResponseAnswer, ResponseRequest
from albireo.server.protocol.scoring import Ranking, RerankRequest, ScoreList, ScoreRequest
from albireo.server.protocol.tei import (
    Info,
    PredictAsk,
    Predicted,
    Ranked,
    SimilarityAsk,
    SimpleToken,
    TeiDecodeAsk,
    TeiEmbedAllAsk,
    TeiEmbedAsk,
    TeiEmbedSparseAsk,
    TeiRerankAsk,
    TeiTokenizeAsk,
    Weight,
)
from albireo.server.protocol.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from albireo.server.protocol.transcriptions import TranscriptionRequest

_RERANK = ("/rerank", "/v1/rerank", "/v2/rerank")
#: (path, what it does, request, answer).
_POSTS = (
    ("/v1/completions", "Go on with a text.", CompletionRequest, Completion),
    ("/v1/chat/completions", "Answer a conversation.", ChatRequest, ChatCompletion),
    ("/v1/chat/completions/batch", "Answer several conversations.", ChatBatchRequest, ChatCompletion),
    ("/v1/responses", "Answer a conversation, and keep the answer.", ResponseRequest, ResponseAnswer),
    ("/v1/conversations", "Keep what is said in several responses.", ConversationAsk, ConversationTold),
    ("/v1/conversations/{name}", "Give it other metadata.", ConversationChange, ConversationTold),
    ("/v1/conversations/{name}/items", "Put items at its end.", MoreItems, ItemList),
    ("/v1/responses/input_tokens", "Tokens of a conversation.", ResponseRequest, InputTokens),
    ("/v1/messages", "Answer a conversation; Anthropic's protocol.", MessagesRequest, MessageAnswer),
    ("/v1/completions/render", "The same in tokens, which are not run.", CompletionRequest, list[Rendered]),
    ("/v1/chat/completions/render", "The same in tokens, which are not run.", ChatRequest, Rendered),
    ("/v1/messages/render", "The same in tokens, which are not run.", MessagesRequest, Rendered),
    ("/inference/v1/generate", "Go on with token ids.", GenerateTokensAsk, TokensAnswer),
    ("/abort_requests", "End requests as they are.", AbortAsk, dict[str, str | int]),
    ("/inference/v1/abort_requests", "The same.", AbortAsk, dict[str, str | int]),
    ("/v1/messages/count_tokens", "Tokens of a conversation.", CountTokensRequest, TokenCount),
    ("/v1/embeddings", "Texts to vectors.", EmbeddingRequest, EmbeddingList),
    ("/v2/embed", "The same; Cohere's protocol.", TypedEmbedAsk, EmbedAnswer),
    ("/classify", "Texts to classes.", ClassifyRequest, ClassList),
    ("/pooling", "Texts to what the model makes of them.", PoolingRequest, PooledList),
    *((path, "How well texts go together.", ScoreRequest, ScoreList) for path in ("/score", "/v1/score")),
    *((path, "Documents by how well they go with a query.", RerankRequest, Ranking) for path in _RERANK),
    ("/api/chat", "Answer a conversation; Ollama's protocol.", ChatAsk, ChatAnswered),
    ("/api/generate", "Answer a text, or go on with it.", GenerateAsk, GenerateAnswered),
    ("/api/embed", "Texts to vectors.", EmbedAsk, Embedded),
    ("/api/embeddings", "A text to a vector, which is not scaled.", EmbeddingAsk, EmbeddedOne),
    ("/completion", "Go on with a text; llama.cpp's protocol.", CompletionAsk, Completed),
    ("/infill", "Fill a gap in a text.", InfillAsk, Completed),
    ("/apply-template", "A conversation as a text.", ChatRequest, AppliedTemplate),
    ("/embed", "Texts to vectors; the protocol of text-embeddings-inference.", TeiEmbedAsk, list[list[float]]),
    ("/embed_all", "A vector of each token.", TeiEmbedAllAsk, list[list[list[float]]]),
    ("/embed_sparse", "Texts to weights of the vocabulary.", TeiEmbedSparseAsk, list[list[Weight]]),
    ("/predict", "Texts, or pairs of them, to classes.", PredictAsk, list[Predicted | list[Predicted]]),
    ("/similarity", "How near texts are to one.", SimilarityAsk, list[float]),
    ("/v1/batches", "Run the requests of a file.", BatchRequest, Batch),
    ("/v1/load_lora_adapter", "Serve an adapter.", LoadAdapterRequest, str),
    ("/v1/unload_lora_adapter", "Serve it no more.", UnloadAdapterRequest, str),
    ("/tokenize", "Text to token ids.", TokenizeRequest, Tokenized),
    ("/decode", "Token ids to texts; the protocol of text-embeddings-inference.", TeiDecodeAsk, list[str]),
    ("/detokenize", "Token ids to text.", DetokenizeRequest, Detokenized),
)
#: Of them, those that take another protocol's request, too, and give its answer.
_ALSO: dict[str, tuple[Any, Any]] = {
    "/rerank": (TeiRerankAsk, list[Ranked]),
    "/tokenize": (TeiTokenizeAsk, list[list[SimpleToken]]),
}
#: Of them, those that answer with events where `stream` is true.
_STREAMING = (
    "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/completion", "/infill",
    "/inference/v1/generate",
)  # fmt: skip
#: Of them, those that answer with lines of JSON unless `stream` is false.
_LINES = ("/api/chat", "/api/generate")
_JSON, _EVENTS, _TEXT, _NDJSON = "application/json", "text/event-stream", "text/plain", "application/x-ndjson"
#: (method, path, what it does), of those without a body of JSON.
_OTHERS = (
    ("post", "/v1/audio/transcriptions", "Write down what is said in a sound."),
    ("post", "/v1/audio/translations", "The same, in English."),
    ("post", "/invocations", "Any of completions, chats, embeddings, classes, scores and rankings, by its fields."),
    ("post", "/sleep", "Give the engine's memory back until a request comes."),
    ("post", "/wake_up", "Start it again."),
    ("get", "/is_sleeping", "Whether it has no process."),
    ("post", "/pause", "Begin nothing more; answers once nothing runs."),
    ("post", "/resume", "Go on."),
    ("get", "/is_paused", "Whether nothing is begun."),
    ("post", "/reset_prefix_cache", "Forget what was computed; who runs goes on."),
    ("get", "/api/version", "The version of Ollama's protocol that is spoken."),
    ("get", "/api/tags", "The models there are."),
    ("get", "/api/ps", "Those that have their memory."),
    ("post", "/api/show", "What is known of one."),
    ("post", "/api/pull", "Nothing: of a model that is here."),
    *((method.lower(), path, "Refused.") for method, path in REFUSED if method != "HEAD"),
    ("get", "/props", "The model, and what holds where a request says nothing; llama.cpp's protocol."),
    ("get", "/slots", "What runs at one time."),
    *((method.lower(), path, "Refused.") for method, path in LLAMA_REFUSED),
    ("get", "/v1/models", "The models there are."),
    ("get", "/v1/models/{name}", "One of them."),
    ("get", "/v1/conversations/{name}", "One of them."),
    ("delete", "/v1/conversations/{name}", "Keep it no more."),
    ("get", "/v1/conversations/{name}/items", "What is said in it, the newest first."),
    ("get", "/v1/conversations/{name}/items/{item}", "One item."),
    ("delete", "/v1/conversations/{name}/items/{item}", "Take it out."),
    ("get", "/v1/responses/{name}", "A response that is kept, or its events."),
    ("delete", "/v1/responses/{name}", "Keep it no more."),
    ("post", "/v1/responses/{name}/cancel", "End one that runs in the background."),
    ("post", "/v1/files", "Upload a file of requests."),
    ("get", "/v1/files", "The files there are."),
    ("get", "/v1/files/{name}", "One of them."),
    ("delete", "/v1/files/{name}", "Delete it."),
    ("get", "/v1/files/{name}/content", "What is in it."),
    ("get", "/v1/batches", "The batches there are, the newest first."),
    ("get", "/v1/batches/{name}", "One of them, and how far it is."),
    ("post", "/v1/batches/{name}/cancel", "End it."),
    ("get", "/v1/requests/{name}/explain", "Where the time of a request went."),
    ("get", "/v1/stats", "What the engine is doing, as server-sent events."),
    ("get", "/health", "Whether it serves, and gets on."),
    ("get", "/ping", "The same."),
    ("post", "/ping", "The same."),
    ("get", "/load", "How many requests are not over."),
    ("get", "/tokenizer_info", "Special tokens and the chat template, with --enable-tokenizer-info-endpoint."),
    ("get", "/version", "The version."),
    ("get", "/info", "What is served, as text-embeddings-inference tells it."),
    ("post", "/", "What the model does with texts, as of /embed, /predict, /similarity or /rerank, by its fields."),
    ("get", "/metrics", "For Prometheus."),
)
#: (method, path) -> what comes, of those of _OTHERS whose answer is not any JSON: a type, or media; None: nothing.
_ANSWERS: dict[tuple[str, str], Any] = {
    ("post", "/v1/audio/transcriptions"): (_JSON, _TEXT, _EVENTS),
    ("post", "/v1/audio/translations"): (_JSON, _TEXT, _EVENTS),
    ("post", "/invocations"): (_JSON, _EVENTS),
    ("post", "/api/pull"): (_NDJSON,),
    ("post", "/sleep"): None,
    ("post", "/wake_up"): None,
    ("post", "/reset_prefix_cache"): None,
    ("get", "/v1/conversations/{name}"): ConversationTold,
    ("delete", "/v1/conversations/{name}"): ConversationDeleted,
    ("get", "/v1/conversations/{name}/items"): ItemList,
    ("delete", "/v1/conversations/{name}/items/{item}"): ConversationTold,
    ("get", "/v1/responses/{name}"): ResponseAnswer,
    ("delete", "/v1/responses/{name}"): Deleted,
    ("post", "/v1/responses/{name}/cancel"): ResponseAnswer,
    ("post", "/v1/files"): FileObject,
    ("get", "/v1/files"): FileList,
    ("get", "/v1/files/{name}"): FileObject,
    ("delete", "/v1/files/{name}"): DeletedFile,
    ("get", "/v1/files/{name}/content"): ("application/octet-stream",),
    ("get", "/v1/batches"): BatchList,
    ("get", "/v1/batches/{name}"): Batch,
    ("post", "/v1/batches/{name}/cancel"): Batch,
    ("get", "/info"): Info,
    ("get", "/v1/stats"): (_EVENTS,),
    ("get", "/metrics"): (_TEXT,),
}
_ID = {"type": "string"}
_FLAG = {"type": "boolean"}
#: A server of several models takes it where no body names one.
_MODEL = ("model", _ID, "Of several models which; by default all, or the first that is awake.")
_ORDER = ("order", {"enum": ["asc", "desc"]}, "desc: the newest first.")
_AFTER = ("after", _ID, "Only those behind this id.")


def _limit(most: int) -> tuple[str, dict[str, Any], str]:
    return "limit", {"type": "integer", "minimum": 1, "maximum": most}, "At most so many."


#: (method, path) -> what may stand behind its question mark: name, schema, what it does.
_QUERIES: dict[tuple[str, str], tuple[tuple[str, dict[str, Any], str], ...]] = {
    ("post", "/sleep"): (("level", {"enum": ["1", "2"]}, "They are the same here."), _MODEL),
    ("post", "/wake_up"): (("tags", {"enum": ["weights", "kv_cache"]}, "Either wakes all."), _MODEL),
    ("get", "/is_sleeping"): (_MODEL,),
    ("post", "/pause"): (
        ("mode", {"enum": ["abort", "wait", "keep"]}, "What becomes of what runs: it ends, is finished, or waits."),
        ("clear_cache", _FLAG, "What was computed is not found again; by default so, and not where mode is keep."),
        _MODEL,
    ),
    ("post", "/resume"): (_MODEL,),
    ("get", "/is_paused"): (_MODEL,),
    ("post", "/abort_requests"): (_MODEL,),
    ("post", "/inference/v1/abort_requests"): (_MODEL,),
    ("post", "/reset_prefix_cache"): (
        ("reset_external", _FLAG, "What is kept in files, too."),
        ("reset_running_requests", _FLAG, "Changes nothing."),
        _MODEL,
    ),
    ("get", "/v1/stats"): (_MODEL,),
    ("get", "/tokenizer_info"): (_MODEL,),
    ("get", "/props"): (_MODEL,),
    ("get", "/slots"): (_MODEL, ("fail_on_no_slot", _FLAG, "503 where all are in use.")),
    ("get", "/v1/responses/{name}"): (
        ("stream", _FLAG, "Its events, as server-sent events; those to come, too."),
        ("starting_after", {"type": "integer", "minimum": 0}, "Only those behind the one with this sequence_number."),
    ),
    ("get", "/v1/conversations/{name}/items"): (_limit(100), _AFTER, _ORDER),
    ("get", "/v1/files"): (
        _limit(10_000),
        _AFTER,
        _ORDER,
        ("purpose", _ID, "Only those of this purpose."),
    ),
    ("get", "/v1/batches"): (_limit(100), _AFTER),
}
_FILE = {"type": "string", "format": "binary"}
_OF_SOUNDS = msgspec.json.schema(TranscriptionRequest)["$defs"]["TranscriptionRequest"]["properties"]
#: Path -> the fields of its form, and those that must be there; a file is one of bytes.
_FORMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "/v1/files": ({"file": _FILE, "purpose": {"const": "batch"}}, ["file", "purpose"]),
    **{f"/v1/audio/{path}": ({"file": _FILE, **_OF_SOUNDS}, ["file"]) for path in ("transcriptions", "translations")},
}
_ERROR = {
    "type": "object",
    "description": "What went wrong, of every status from 400 on; /v1/messages has Anthropic's form, /api Ollama's.",
    "properties": {
        "error": {
            "type": ["object", "string"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_STYLE = "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}td{padding:.1rem .8rem .1rem 0}"


def openapi() -> dict[str, Any]:
    """The schema, OpenAPI 3.1."""
    types = [kind for post in _POSTS for kind in post[2:]]
    types += [kind for also in _ALSO.values() for kind in also]
    told_types = [kind for kind in _ANSWERS.values() if isinstance(kind, type)]
    schemas, components = msgspec.json.schema_components(
        [*types, *told_types], ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    asks, answers = schemas[: len(types) : 2], schemas[1 : len(types) : 2]
    also = dict(zip(_ALSO, zip(asks[len(_POSTS) :], answers[len(_POSTS) :], strict=True), strict=True))
    for (path, words, _, told), request, answer in zip(
        _POSTS, asks[: len(_POSTS)], answers[: len(_POSTS)], strict=True
    ):
        if path in also:
            request, answer = ({"anyOf": list(pair)} for pair in zip((request, answer), also[path], strict=True))
        content: dict[str, Any] = {_TEXT if told is str else _JSON: {"schema": answer}}
        for media, streaming in ((_EVENTS, _STREAMING), (_NDJSON, _LINES)):
            if path in streaming:
                content[media] = {"schema": {}}
        paths[path] = {
            "post": {
                "summary": words,
                "requestBody": {"required": True, "content": {_JSON: {"schema": request}}},
                "responses": {"200": {"description": "OK", "content": content}},
                **_parameters("post", path),
            }
        }
    shapes = dict(zip(told_types, schemas[len(types) :], strict=True))
    for method, path, words in _OTHERS:
        responses = {"200": _ok(_ANSWERS.get((method, path), (_JSON,)), shapes)}
        operation: dict[str, Any] = {"summary": words, "responses": responses, **_parameters(method, path)}
        if method == "post" and path in _FORMS:
            properties, required = _FORMS[path]
            form = {"type": "object", "properties": properties, "required": required}
            operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
        paths.setdefault(path, {})[method] = operation
    failed = {"schema": {"$ref": "#/components/schemas/Error"}}
    for methods in paths.values():
        for operation in methods.values():
            operation["responses"]["default"] = {"description": "Error", "content": {"application/json": failed}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Albireo", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # The server may have been started with keys, or without.
        "security": [{}, {"key": []}],
    }


def _ok(told: Any, shapes: dict[type, dict[str, Any]]) -> dict[str, Any]:
    """What comes with a 200. Args: told: see _ANSWERS. shapes: of its types."""
    if told is None:
        return {"description": "OK"}
    if not isinstance(told, type):
        return {"description": "OK", "content": {media: {"schema": {}} for media in told}}
    content = {_JSON: {"schema": shapes[told]}}
    if told is ResponseAnswer:
        content[_EVENTS] = {"schema": {}}
    return {"description": "OK", "content": content}


def _parameters(method: str, path: str) -> dict[str, Any]:
    """What stands in a path, and behind its question mark."""
    found = [_parameter(name, "path", _ID, "Of which.") for name in re.findall(r"{(\w+)}", path)]
    found += [_parameter(name, "query", kind, what) for name, kind, what in _QUERIES.get((method, path), ())]
    return {"parameters": found} if found else {}


def _parameter(name: str, place: str, schema: dict[str, Any], what: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": what,
        "schema": schema,
    }


class Docs:
    """Both endpoints. The schema is made when somebody first asks: that takes a twelfth of a server's start."""

    def __init__(self, root_path: str = "") -> None:
        """Args: root_path: what a proxy puts before paths."""
        self._root_path = root_path

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return openapi() | ({"servers": [{"url": self._root_path}]} if self._root_path else {})

    async def schema(self, http: Request) -> Response:
        """The schema."""
        return Response(msgspec.json.encode(self._schema), media_type="application/json")

    async def page(self, http: Request) -> Response:
        """The schema for people."""
        return Response(_page(self._schema), media_type="text/html; charset=utf-8")


def _page(schema: dict[str, Any]) -> str:
    parts = [f"<!doctype html><html lang=en><title>Albireo</title><style>{_STYLE}</style><h1>Albireo</h1>"]
    parts.append("<p>The same as a schema: <a href=openapi.json>openapi.json</a></p><h2>Routes</h2><table>")
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            queries = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
            place = f"{path}?{'&'.join(queries)}" if queries else path
            words = html.escape(operation["summary"])
            parts.append(f"<tr><td>{method.upper()}<td><code>{html.escape(place)}</code><td>{words}")
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
    if "prefixItems" in kind:
        return ", ".join(_kind(each) for each in kind["prefixItems"])
    if kind.get("type") == "array":
        return f"list of {_kind(kind.get('items', {}))}"
    return str(kind.get("type", "anything"))
