"""Ollama's /api/tags, /api/ps, /api/show and /api/version: the models there are; and what is not done to them here.

Of one model, or of several (app_of_several.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from albireo import __version__
from albireo.server.body import parse
from albireo.server.dialects.ollama import plain_name, tagged
from albireo.server.endpoints.ollama_asked import all_names
from albireo.server.errors import HttpError, unsupported
from albireo.server.model_card import ModelCard, card_of
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.ollama import PULL_NEUTRAL, SHOW_NEUTRAL, PullAsk, ShowAsk
from albireo.server.serving import Serving

#: Whose protocol this is: clients ask whether it has thinking, tools, log-probabilities.
PROTOCOL = "0.12.11"
#: Where a model is chosen.
_ADVICE = "models are chosen where the server is started: albireo serve MODEL..."
#: (method, path) -> what is not done there.
REFUSED = {
    ("POST", "/api/push"): "models are not pushed from here",
    ("POST", "/api/create"): "models are not created here",
    ("POST", "/api/copy"): "models are not copied here; --served-model-name gives one several names",
    ("DELETE", "/api/delete"): "models are not deleted here; keep_alive 0 gives the memory of one back",
    ("HEAD", "/api/blobs/{name}"): "there are no blobs here",
    ("POST", "/api/blobs/{name}"): "there are no blobs here",
}
_SHOW, _PULL = msgspec.json.Decoder(ShowAsk), msgspec.json.Decoder(PullAsk)
#: When a model is to sleep that never does.
_NEVER = datetime(2318, 1, 1, tzinfo=UTC)


class OllamaModels:
    """The endpoints."""

    def __init__(self, servings: Callable[[], Sequence[Serving]]) -> None:
        """Args: servings: all there are now."""
        self._servings = servings
        self._cards: dict[Serving, ModelCard] = {}

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/version", self.version),
            Route("/api/tags", self.tags),
            Route("/api/ps", self.ps),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/pull", self.pull, methods=["POST"]),
            *(Route(path, _refusing(words), methods=[method]) for (method, path), words in REFUSED.items()),
        ]

    async def version(self, http: Request) -> Response:
        """The protocol's, which clients compare, and this server's."""
        return _json({"version": PROTOCOL, "albireo": __version__})

    async def tags(self, http: Request) -> Response:
        """All models, by each of their names, and adapters."""
        return _json(
            {"models": [await self._entry(each, name) for each in self._servings() for name in all_names(each)]}
        )

    async def ps(self, http: Request) -> Response:
        """Those that have their memory."""
        found = []
        for each in self._servings():
            if each.is_loaded and each.failure() is None and not each.client.is_asleep:
                memory = sum(each.ready.memory.values()) * len(each.client.engines)
                left_s = each.sleep_after_s - each.client.rest_s()
                until = _NEVER if left_s == math.inf else datetime.now(UTC) + timedelta(seconds=min(left_s, 1e9))
                entry = await self._entry(each, each.names[0]) | {
                    "size": memory,
                    "size_vram": memory if each.ready.device == "cuda" else 0,
                    "expires_at": _time(until),
                    "context_length": each.ready.max_model_len,
                }
                del entry["modified_at"]
                found.append(entry)
        return _json({"models": found})

    async def show(self, http: Request) -> Response:
        """What is known of one."""
        serving = self._servings()[0]
        async with serving.bodies.read(http.scope, http.receive) as body:
            ask = parse(body, _SHOW)
        asked = unneutral(ask, SHOW_NEUTRAL)
        if asked is not None:
            raise unsupported(*asked)
        serving = self._find(ask.model or ask.name)
        card, name = await self._card(serving), serving.names[0]
        has_text = serving.is_loaded
        advice = serving.admission.advice if has_text else {}
        return _json(
            {
                "modelfile": f"FROM {name}\n",
                "parameters": "\n".join(f"{key:30} {value}" for key, value in advice.items()),
                "template": serving.dialect.template if has_text else "",
                "details": _details(card),
                "model_info": card.info,
                "capabilities": card.can,
                "modified_at": _time(card.modified_at),
            }
        )

    async def pull(self, http: Request) -> Response:
        """Of a model that is here: it is. Others are not fetched."""
        serving = self._servings()[0]
        async with serving.bodies.read(http.scope, http.receive) as body:
            ask = parse(body, _PULL)
        asked = unneutral(ask, PULL_NEUTRAL)
        if asked is not None:
            raise unsupported(*asked)
        try:
            self._find(ask.model or ask.name)
        except HttpError as error:
            raise HttpError(400, f"{error.message}, and none is fetched; {_ADVICE}", code="unsupported") from None
        return Response(msgspec.json.encode({"status": "success"}) + b"\n", media_type="application/x-ndjson")

    def _find(self, name: str | None) -> Serving:
        """Raises: HttpError 404."""
        servings = self._servings()
        names = [known for each in servings for known in all_names(each)]
        plain = plain_name(name, names)
        if not plain:
            raise HttpError(400, "model is missing; name one of those of /api/tags", param="model")
        for each in servings:
            if plain in all_names(each):
                return each
        raise HttpError(404, f"the model {name!r:.100} does not exist; there is {', '.join(names)}", param="model")

    async def _card(self, serving: Serving) -> ModelCard:
        if not serving.is_loaded:
            return card_of(serving)
        found = self._cards.get(serving)
        if found is None:
            found = await serving.in_thread(partial(card_of, serving))  # which reads files
            here = self._servings()
            self._cards = {each: card for each, card in self._cards.items() if each in here} | {serving: found}
        return found

    async def _entry(self, serving: Serving, name: str) -> dict[str, Any]:
        card = await self._card(serving)
        return {
            "name": tagged(name),
            "model": tagged(name),
            "modified_at": _time(card.modified_at),
            "size": card.num_bytes,
            "digest": card.digest,
            "details": _details(card),
        }


def _refusing(words: str) -> Callable[[Request], Any]:
    async def refuse(http: Request) -> Response:
        raise HttpError(400, f"{words}; {_ADVICE}", code="unsupported")

    return refuse


def _details(card: ModelCard) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": card.format,
        "family": card.family,
        "families": [card.family] if card.family else [],
        "parameter_size": _size(card.num_parameters),
        "quantization_level": card.encoding,
    }


def _size(num: int) -> str:
    """A number of parameters as Ollama writes it: 7.6B, 494.03M; empty where it is not known."""
    if num >= 10**9:
        return f"{num / 10**9:.1f}B"
    if num >= 10**6:
        return f"{num / 10**6:.2f}M"
    return f"{num / 10**3:.2f}K" if num >= 10**3 else ""


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _json(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
