"""POST /pause, /resume and /abort_requests, GET /is_paused, as in vLLM: nothing runs while somebody writes weights, or
looks at the machine, and requests that wait meanwhile go on from their tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, get_args

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from albireo.engine_process.tracked import Tracked
from albireo.errors import EngineError
from albireo.replicas.replicas import PauseMode
from albireo.server.body import parse
from albireo.server.errors import HttpError, busy
from albireo.server.serving import Serving

_MODES: tuple[PauseMode, ...] = get_args(PauseMode)
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}


class AbortAsk(msgspec.Struct, forbid_unknown_fields=True):
    """request_ids: ids of answers; none: all that run, and those that wait."""

    request_ids: Annotated[list[str], Meta(max_length=65_536)] | None = None


_ABORT = msgspec.json.Decoder(AbortAsk)


class Pause:
    """The endpoints."""

    def __init__(self, serving: Serving) -> None:
        """Args: serving: that is paused, unless _of() says otherwise."""
        self._serving = serving

    async def pause(self, http: Request) -> Response:
        """Answers once nothing runs, or it is resumed meanwhile. mode: what becomes of what runs, see Replicas.pause();
        clear_cache: unless it is kept, what was computed is not found again."""
        self._check(http, "mode", "clear_cache")
        given = http.query_params.get("mode", "abort")
        mode = next((each for each in _MODES if each == given), None)
        if mode is None:
            raise HttpError(
                400, f"mode={given!r:.60} is not known; it must be one of {', '.join(_MODES)}", param="mode"
            )
        switch = http.query_params.get("clear_cache", "true")
        if switch.lower() not in _SWITCHES:
            words = f"clear_cache={switch!r:.60} is not known; it must be true or false"
            raise HttpError(400, words, param="clear_cache")
        chosen = [serving.client for serving in self._of(http)]
        if not all(await asyncio.gather(*(client.pause(mode) for client in chosen))):
            return _json({"status": "resumed"})
        if mode != "keep" and _SWITCHES[switch.lower()]:
            await asyncio.gather(*(client.forget_prefixes(False) for client in chosen))
        return _json({"status": "paused"})

    async def resume(self, http: Request) -> Response:
        """Go on with what waits."""
        self._check(http)
        try:
            for serving in self._of(http):
                serving.client.resume()
        except EngineError as error:
            raise busy(503, str(error), "engine_down", 5) from None
        return _json({"status": "resumed"})

    async def is_paused(self, http: Request) -> Response:
        """Whether it is; of several, whether all are."""
        return _json({"is_paused": all(serving.client.is_paused for serving in self._of(http))})

    async def abort(self, http: Request) -> Response:
        """End requests as they are, with finish_reason abort. Ids that nobody has are no error: they may be over."""
        async with self._serving.bodies.read(http.scope, http.receive) as body:
            ask = parse(body, _ABORT) if body.strip() else AbortAsk()
        self._check(http)
        wanted = None if ask.request_ids is None else frozenset(ask.request_ids)
        num = 0
        for serving in self._of(http):
            found = [each for each in serving.client.requests.values() if _is_wanted(each, wanted)]
            for tracked in found:
                serving.client.abort(tracked)
            num += len(found)
        return _json({"status": "aborted", "aborted": num})

    def _check(self, http: Request, *known: str) -> None:
        """Raises: HttpError for whoever may be anybody, and what is not known."""
        self._serving.check_trusted("requests of all are paused, resumed and ended")
        names = (*known, "model")
        for name in http.query_params:
            if name not in names:
                raise HttpError(400, f"{name!r:.60} is not known here; there is {', '.join(names)}", param=name[:60])

    def _of(self, http: Request) -> Sequence[Serving]:
        """Who is meant. Raises: HttpError 404 where the query names another model."""
        self._serving.check_model(http.query_params.get("model"))
        return [self._serving]


def _is_wanted(tracked: Tracked, ids: frozenset[str] | None) -> bool:
    """Args: ids: None: any. Those of batches are run again by nobody else, and end as others do."""
    return ids is None or tracked.request_id in ids


def _json(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
