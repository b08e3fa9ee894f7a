"""What the server is and how it is: /health /ping /version /v1/models /metrics /v1/stats and explanations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo import __version__
from albireo.server.errors import HttpError
from albireo.server.serving import Serving

#: What /health says of a model that answers, if only after waking.
SERVED = ("ok", "asleep", "waking", "paused")


class Status:
    """The endpoints."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def health(self, http: Request) -> Response:
        """200 when requests are served, if only after waking, and, if there are any, get on; 503 with the reason
        otherwise."""
        state, status = self.state() | self._engines(), 503
        if state["status"] in SERVED:
            status = 200
        return _json(state, status, {} if status == 200 else {"retry-after": "1"})

    def state(self) -> dict[str, Any]:
        """How the engines are together."""
        serving, health = self._serving, self._serving.client.health
        if health.failure is not None:
            return {"status": "failed"}
        if serving.is_draining:
            return {"status": "shutting_down", "num_requests": len(serving.client.requests)}
        if health.state in ("loading", "waking") or serving.metrics is None:
            state = "loading" if serving.metrics is None else health.state
            return {"status": state, "progress": round(health.loaded_frac, 3)}
        if serving.client.is_paused and health.state in ("ready", "asleep"):
            return {
                "status": "paused",
                "num_restarts": health.num_restarts,
                "num_held": serving.client.num_held,
            }
        if health.state != "ready":
            return {"status": health.state, "num_restarts": health.num_restarts}
        idle_s = serving.client.idle_s()
        if idle_s > serving.settings.health_timeout:
            return {"status": "stalled", "seconds_without_a_step": round(idle_s, 1)}
        return {"status": "ok", "num_restarts": health.num_restarts}

    def _engines(self) -> dict[str, Any]:
        """Of several engines, how each is. The log says why one failed."""
        engines, limit_s = self._serving.client.engines, self._serving.settings.health_timeout
        if len(engines) == 1:
            return {}
        found = []
        for engine in engines:
            health = engine.health
            state: dict[str, Any] = {"status": "ok" if health.state == "ready" else health.state}
            if health.state in ("loading", "waking"):
                state["progress"] = round(health.loaded_frac, 3)
            if health.failure is not None:
                state["error"] = type(health.failure).__name__
            if engine.idle_s() > limit_s:
                state = {"status": "stalled", "seconds_without_a_step": round(engine.idle_s(), 1)}
            found.append({**state, "num_restarts": health.num_restarts})
        return {"engines": found}

    async def ping(self, http: Request) -> Response:
        """As /health, for SageMaker's probes."""
        return await self.health(http)

    async def version(self, http: Request) -> Response:
        """The package's version."""
        return _json({"version": __version__})

    async def load(self, http: Request) -> Response:
        """How many requests are not over, as vLLM tells it."""
        return _json({"server_load": self._serving.accounts.num_open})

    async def models(self, http: Request) -> Response:
        """The model, by each of its names, and its adapters."""
        _ = self._serving.ready
        return _json({"object": "list", "data": self.cards()})

    def cards(self) -> list[dict[str, Any]]:
        """What /v1/models says of each name. Of a model that was never loaded it does not say how long a context is."""
        names = [*self._serving.names, *(served.name for served in self._serving.adapters.all())]
        return [self._card(name) for name in names]

    async def model(self, http: Request) -> Response:
        """One of them; all, where a slash and no name follows."""
        name = http.path_params["name"]
        if not name:
            return await self.models(http)
        self._serving.check_model(name)
        _ = self._serving.ready
        return _json(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        serving = self._serving
        adapter = serving.adapters.find(name)
        return {
            "id": name,
            "object": "model",
            "created": int(serving.started_s),
            "owned_by": "albireo",
            "root": serving.names[0] if adapter is None else adapter.path,
            "parent": None if adapter is None else serving.names[0],
            "max_model_len": serving.ready.max_model_len if serving.is_loaded else None,
        }

    async def metrics(self, http: Request) -> Response:
        """For Prometheus."""
        serving = self._serving
        _ = serving.ready
        assert serving.metrics is not None, "loaded"
        text = serving.metrics.text(serving.client.engines)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def explain(self, http: Request) -> Response:
        """Where the time of a request went."""
        account = self._serving.accounts.explain(http.path_params["name"])
        if account is None:
            raise HttpError(404, "there is no account of that request; only the last ones are kept", code="not_found")
        return _json(account)


class Stats:
    """GET /v1/stats: events about what the engine is doing, as long as the client listens."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        live = self._serving.live
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        events = live.watch()
        leaving = asyncio.create_task(_until_gone(receive, lambda: live.end(events)))
        try:
            while (event := await events.get()) is not None:
                await send({"type": "http.response.body", "body": b"data: %b\n\n" % event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            live.end(events)


async def _until_gone(receive: Receive, tell: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    tell()


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(answer), status, headers, "application/json")
