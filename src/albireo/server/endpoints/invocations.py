"""POST /invocations: one route for whatever is asked, told by the fields of the body. SageMaker asks so, and /ping.

As in vLLM. What is asked is answered by the endpoint of its own route, errors included.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from albireo.server.body import replayed
from albireo.server.errors import HttpError
from albireo.server.serving import Serving

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: Fields of a body, all of which it has -> the route that it is for; the first that fits.
_FIELDS = (
    (("messages",), "/v1/chat/completions"),
    (("query", "documents"), "/rerank"),
    (("text_1", "text_2"), "/score"),
    (("queries", "documents"), "/score"),
    (("input",), "/v1/embeddings"),
    (("prompt",), "/v1/completions"),
)


class Invocations:
    """The endpoint, as an ASGI application."""

    def __init__(self, serving: Serving, endpoints: Mapping[str, ASGIApp]) -> None:
        """Args: endpoints: by their routes."""
        self._serving, self._endpoints = serving, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self._serving
        async with serving.bodies.read(scope, receive) as body:
            pass  # held by the endpoint, which reads it again
        serving.check_open()
        route = _route(body)
        if route == "/v1/embeddings" and serving.ready.pooling_rule.labels:
            route = "/classify"
        await self._endpoints[route](scope, replayed(body, receive), send)


def _route(body: bytes) -> str:
    """Raises: HttpError 400 for what is nothing that is answered."""
    try:
        given = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HttpError(400, "the body is no object in JSON", code="invalid_json") from None
    for fields, route in _FIELDS:
        if all(field in given for field in fields):
            return route
    known = "; ".join(" and ".join(fields) for fields, _ in _FIELDS)
    raise HttpError(400, f"nobody answers a body of these fields; give one of: {known}", code="invalid_value")
