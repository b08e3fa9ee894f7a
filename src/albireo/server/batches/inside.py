"""Asking the application for something without a connection, through the very code that an HTTP request goes through.

Used by job.py. Does not know what is asked for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message

from albireo.server.generation import BEHIND


@dataclass(frozen=True, slots=True)
class Answered:
    """Fields: headers: lower case. status: 0 when there was no answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Inside:
    """Asks. Cancelling ends the request, as if its client had left."""

    def __init__(self, app: ASGIApp, behind: int) -> None:
        """Args: app: without a check for keys; behind: added to the priority of each request."""
        self._app, self._behind = app, behind

    async def post(self, path: str, body: bytes) -> Answered:
        """The answer to a body of JSON."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("ascii"),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
            "client": None,
            "server": None,
            BEHIND: self._behind,
        }
        is_read = False
        status, headers, chunks = 0, {}, []

        async def receive() -> Message:
            nonlocal is_read
            if is_read:  # nobody leaves
                await asyncio.get_running_loop().create_future()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            else:
                chunks.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return Answered(status, headers, b"".join(chunks))
