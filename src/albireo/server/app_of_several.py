"""The application of several models: requests go to the one that they name, and the rest tells of all.

Made by run.py. What is not here is answered by the first model's application, such as the page.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from albireo.errors import EngineError
from albireo.server.app import behind_errors, guarded
from albireo.server.body import WAITED, ClientGone, parse, replayed
from albireo.server.dialects.ollama import is_unload, plain_name
from albireo.server.endpoints.ollama_models import OllamaModels
from albireo.server.endpoints.pause import Pause
from albireo.server.endpoints.prefix_cache import PrefixCache
from albireo.server.endpoints.sleep import Sleep, Sleeper
from albireo.server.endpoints.status import SERVED, Status
from albireo.server.errors import HttpError
from albireo.server.form import read_form
from albireo.server.metrics import Joined
from albireo.server.protocol.ollama import KeepAlive
from albireo.server.serving import Serving
from albireo.server.several import Model, Models

#: Routes whose body names a model, which is woken; and those that ask its tokenizer only, which is there once loaded.
WAKING = (
    "/v1/completions", "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/embeddings", "/v2/embed", "/classify",
    "/pooling", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/invocations", "/v1/messages",
    "/v1/responses", "/v1/audio/transcriptions", "/v1/audio/translations", "/api/chat", "/api/generate", "/api/embed",
    "/api/embeddings", "/completion", "/infill", "/embed", "/embed_all", "/embed_sparse", "/predict", "/similarity",
    "/", "/inference/v1/generate",
)  # fmt: skip
TEXT_ONLY = (
    "/v1/completions/render", "/v1/chat/completions/render", "/v1/messages/render", "/v1/messages/count_tokens",
    "/v1/responses/input_tokens", "/tokenize", "/detokenize", "/decode", "/apply-template",
)  # fmt: skip


#: What is said of all: the best that one of them is.
_ORDER = ("ok", "paused", "waking", "loading", "asleep", "unloaded")


class _Named(msgspec.Struct):
    """Of a body, who is asked; the rest is skipped."""

    model: str | None = None


class _Kept(_Named):
    """The same, and what Ollama's routes say of how long it stays."""

    keep_alive: KeepAlive | None = None
    prompt: Any = None
    messages: Any = None
    input: Any = None
    images: Any = None


_NAMED, _KEPT = msgspec.json.Decoder(_Named), msgspec.json.Decoder(_Kept)


def application(models: Models) -> ASGIApp:
    """All routes, for who may ask."""
    told, sleep, pause = _Told(models), _Sleep(models), _Pause(models)
    app = behind_errors(
        [
            *(Route(path, _Asked(models, wakes=True), methods=["POST"]) for path in WAKING),
            *(Route(path, _Asked(models, wakes=False), methods=["POST"]) for path in TEXT_ONLY),
            Route("/", _Page(models), methods=["GET"]),
            Route("/v1/models", told.models),
            Route("/v1/models/{name:path}", told.model),
            Route("/health", told.health),
            Route("/ping", told.health, methods=["GET", "POST"]),
            Route("/metrics", told.metrics),
            *OllamaModels(lambda: models.servings).routes(),
            Route("/v1/requests/{name:path}/explain", _Owned(models, _has_account), methods=["GET"]),
            Route("/v1/responses/{name}", _Owned(models, _has_response), methods=["GET", "DELETE"]),
            Route("/v1/responses/{name}/cancel", _Owned(models, _has_response), methods=["POST"]),
            *(
                Route(path, _Watched(models), methods=["GET"])
                for path in ("/v1/stats", "/tokenizer_info", "/props", "/slots")
            ),
            Route("/load", told.load),
            Route("/sleep", sleep.sleep, methods=["POST"]),
            Route("/wake_up", sleep.wake_up, methods=["POST"]),
            Route("/is_sleeping", sleep.is_sleeping),
            Route("/pause", pause.pause, methods=["POST"]),
            Route("/resume", pause.resume, methods=["POST"]),
            Route("/is_paused", pause.is_paused),
            *(
                Route(path, pause.abort, methods=["POST"])
                for path in ("/abort_requests", "/inference/v1/abort_requests")
            ),
            Route("/reset_prefix_cache", _PrefixCaches(models).reset, methods=["POST"]),
        ]
    )

    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        await models.first.app(scope, receive, send)

    app.router.default = elsewhere
    return guarded(app, models.settings)


class _Asked:
    """A route whose body names the model, as an ASGI application."""

    def __init__(self, models: Models, *, wakes: bool) -> None:
        self._models, self._wakes = models, wakes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        models = self._models
        try:
            async with AsyncExitStack() as turn:
                async with models.bodies.read(scope, receive) as body:
                    name, is_unload = await self._name(scope, body)
                    model, arrival_s = models.find(name), time.monotonic()
                    if not is_unload and (self._wakes or not model.serving.is_loaded):
                        await turn.enter_async_context(models.turn(model, scope, receive))
                scope[WAITED] = time.monotonic() - arrival_s
                # from here on held by the endpoint, which reads it again
                await model.app(scope, replayed(body, receive), send)
        except ClientGone:
            return

    async def _name(self, scope: Scope, body: bytes) -> tuple[str | None, bool]:
        """Who is asked, and whether for nothing but the memory back. Raises: HttpError 400 for a body that is no JSON,
        or no form."""
        if scope["path"].startswith("/api/"):
            named = parse(body, _KEPT)
            name = plain_name(named.model, [name for each in self._models.all for name in each.names])
            return name, is_unload(named.keep_alive, named.prompt or named.messages or named.input or named.images)
        if not scope["path"].startswith("/v1/audio/"):
            return parse(body, _NAMED).model, False
        content_type = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        form = await self._models.first.serving.in_thread(partial(read_form, content_type, body), True)
        return next(iter(form.values.get("model", ())), None) or None, False


class _Page:
    """What a browser asks for where programs ask, too; the first model's has it. An ASGI application."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._models.first.app(scope, receive, send)


def _has_account(model: Model, name: str) -> bool:
    return model.serving.accounts.explain(name) is not None


def _has_response(model: Model, name: str) -> bool:
    return name in model.responses


class _Owned:
    """A route of what one of the models has, as an ASGI application; the first says that none has it."""

    def __init__(self, models: Models, has: Any) -> None:
        self._models, self._has = models, has

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, models = scope["path_params"]["name"], self._models
        model = next((each for each in models.all if self._has(each, name)), models.first)
        await model.app(scope, receive, send)


class _Watched:
    """GET of what one of them tells, as an ASGI application: ?model=NAME, or the first that is awake."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = Request(scope).query_params.get("model")
        model = self._models.awake if name is None else self._models.find(name)
        await model.app(scope, receive, send)


class _Told:
    """What is told of all."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def models(self, http: Request) -> Response:
        """Each by each of its names."""
        cards = [card for each in self._models.all for card in Status(each.serving).cards()]
        return _json({"object": "list", "data": cards})

    async def model(self, http: Request) -> Response:
        """One of them; all, where a slash and no name follows."""
        name = http.path_params["name"]
        if not name:
            return await self.models(http)
        cards = Status(self._models.find(name).serving).cards()
        return _json(next(card for card in cards if card["id"] == name))

    async def health(self, http: Request) -> Response:
        """200 once the first was loaded, while each can be asked; 503 with how each is otherwise."""
        models = self._models
        states = [{"name": each.name, **_state(each), **models.waited_for(each)} for each in models.all]
        found = [state["status"] for state in states]
        if not models.first.serving.is_loaded or models.is_draining:
            status = found[0]
        else:
            wrong = [each for each in found if each not in (*SERVED, "unloaded", "loading")]
            status = wrong[0] if wrong else min(found, key=_ORDER.index)
            status = "asleep" if status == "unloaded" else "waking" if status == "loading" else status
        code = 200 if status in SERVED else 503
        return _json({"status": status, "models": states}, code, {} if code == 200 else {"retry-after": "1"})

    def _standing(self) -> list[Metric]:
        """Of each model its status, as /health has it, and the requests that wait for it."""
        status = GaugeMetricFamily("albireo:model_status", "How each model is.", labels=("model_name", "status"))
        waiting = GaugeMetricFamily(
            "albireo:model_requests_waiting", "Requests whose model is not awake.", labels=("model_name",)
        )
        for each in self._models.all:
            status.add_metric((each.name, _state(each)["status"]), 1)
            waiting.add_metric((each.name,), self._models.waited_for(each)["num_waiting"])
        return [status, waiting]

    async def load(self, http: Request) -> Response:
        """Requests that are not over, those that wait for their models included."""
        models = self._models
        waiting = sum(models.waited_for(each)["num_waiting"] for each in models.all)
        return _json({"server_load": waiting + sum(serving.accounts.num_open for serving in models.servings)})

    async def metrics(self, http: Request) -> Response:
        """For Prometheus: of all that were loaded; and of each how it is."""
        families = [
            family
            for serving in self._models.servings
            if (metrics := serving.told_metrics) is not None
            for family in metrics.families(serving.client.engines)
        ]
        families += self._standing()
        return Response(Joined(families).text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _state(model: Model) -> dict[str, Any]:
    return {"status": model.status} if model.status else Status(model.serving).state()


class _Sleep(Sleep):
    """Of one, or of all."""

    def __init__(self, models: Models) -> None:
        super().__init__(models.first.serving)
        self._models = models

    def _check_open(self) -> None:
        self._models.check_open()

    def _of(self, http: Request) -> Sleeper:
        name = http.query_params.get("model")
        return _Chosen(self._models, self._models.all if name is None else [self._models.find(name)])


class _Chosen:
    """Some of the models."""

    def __init__(self, models: Models, chosen: list[Model]) -> None:
        self._models, self._chosen = models, chosen

    @property
    def is_asleep(self) -> bool:
        """Whether all are."""
        return all(each.is_asleep for each in self._chosen)

    async def sleep(self) -> None:
        """All, or none. Raises: EngineError."""
        for each in self._chosen:
            if each.takes_memory and not each.is_at_rest:
                raise EngineError(f"{each.name} has requests, or is being started")
        await asyncio.gather(*(each.sleep() for each in self._chosen))

    async def wake(self) -> None:
        """As many as may be awake at one time, from the first on. Raises: EngineError."""
        for each in self._chosen[: self._models.settings.max_awake_models]:
            try:
                await self._models.wake(each)
            except EngineError:
                raise EngineError(f"{each.name} cannot be started; the server's log says why") from None


class _Pause(Pause):
    """Of one, or of all."""

    def __init__(self, models: Models) -> None:
        super().__init__(models.first.serving)
        self._models = models

    def _of(self, http: Request) -> Sequence[Serving]:
        name = http.query_params.get("model")
        return self._models.servings if name is None else [self._models.find(name).serving]


class _PrefixCaches(PrefixCache):
    """Of one, or of all that have a process."""

    def __init__(self, models: Models) -> None:
        super().__init__(models.first.serving)
        self._models = models

    def _check_open(self) -> None:
        self._models.check_open()

    async def _forget(self, model: str | None, with_files: bool) -> None:
        if not with_files:
            chosen = self._models.all if model is None else [self._models.find(model)]
            await asyncio.gather(*(each.serving.client.forget_prefixes(False) for each in chosen))
            return
        if model is None:
            raise HttpError(400, "reset_external is for one of several models; name it: ?model=NAME", param="model")
        found = self._models.find(model)
        await self._models.wake(found)
        await found.serving.client.forget_prefixes(True)


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(answer), status, headers, "application/json")
