"""POST /sleep and /wake_up, GET /is_sleeping, as in vLLM: memory for others while nobody asks for anything.

A request wakes what is asleep, so waking it beforehand only spares that request the wait.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo.errors import EngineError
from albireo.server.errors import HttpError, busy
from albireo.server.serving import Serving

#: vLLM's levels keep the weights in host memory, or do not. Here both end the process: its weights lie in files, which
#: the system keeps in memory as long as nobody else wants it.
_LEVELS = ("1", "2")
#: What vLLM wakes one by one; here with either all is there.
_TAGS = ("weights", "kv_cache")


class Sleeper(Protocol):
    """What is sent to sleep."""

    @property
    def is_asleep(self) -> bool:
        """Whether it is."""

    async def sleep(self) -> None:
        """Returns once it is. Raises: EngineError."""

    async def wake(self) -> None:
        """Returns once it is there. Raises: EngineError."""


class Sleep:
    """The endpoints."""

    def __init__(self, serving: Serving) -> None:
        """Args: serving: that is sent to sleep, unless _of() says otherwise."""
        self._serving = serving

    async def sleep(self, http: Request) -> Response:
        """Give the engine's memory back. Answers once it is; 409 while there are requests."""
        self._check(http, "level")
        level = http.query_params.get("level", "1")
        if level not in _LEVELS:
            raise HttpError(400, f"level={level!r:.60} is not known; it must be {' or '.join(_LEVELS)}", param="level")
        try:
            await self._of(http).sleep()
        except EngineError as error:
            raise HttpError(409, f"it cannot sleep now: {error}; ask again later", code="busy") from None
        return Response()

    async def wake_up(self, http: Request) -> Response:
        """Start it again. Answers once it is ready."""
        self._check(http, "tags")
        for tag in http.query_params.getlist("tags"):
            if tag not in _TAGS:
                raise HttpError(400, f"tags={tag!r:.60} is not known; it must be {' or '.join(_TAGS)}", param="tags")
        try:
            await self._of(http).wake()
        except EngineError as error:
            raise busy(503, str(error), "asleep", 5) from None
        return Response()

    async def is_sleeping(self, http: Request) -> Response:
        """Whether it is."""
        answer = msgspec.json.encode({"is_sleeping": self._of(http).is_asleep})
        return Response(answer, media_type="application/json")

    def _check(self, http: Request, known: str) -> None:
        """Raises: HttpError for whoever may be anybody, and what is not known."""
        self._check_open()
        self._serving.check_trusted("the engine is sent to sleep and woken")
        for name in http.query_params:
            if name not in (known, "model"):
                raise HttpError(400, f"{name!r:.60} is not known here; there are {known} and model", param=name[:60])

    def _check_open(self) -> None:
        """Raises: HttpError 503 when nothing new is done."""
        self._serving.check_open()

    def _of(self, http: Request) -> Sleeper:
        """What is meant. Raises: HttpError 404 where the query names another model."""
        self._serving.check_model(http.query_params.get("model"))
        return self._serving.client
