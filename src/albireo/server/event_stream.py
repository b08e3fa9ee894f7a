"""An answer as events, while it is being sent: server-sent ones, or lines of JSON.

Used by the endpoints that stream. Does not know what events say, nor whose they are.
"""

from __future__ import annotations

from starlette.types import Scope, Send

from albireo.server.accounts import Account

#: Type of server-sent events.
EVENTS = b"text/event-stream; charset=utf-8"
#: A comment among them, which readers skip.
KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """Events. The answer begins with the first of them, so that until then an error has its own status.

    Attributes: media: type of what is sent.
    """

    def __init__(self, scope: Scope, send: Send, account: Account, media: bytes = EVENTS) -> None:
        self.scope = scope
        self.media = media
        self.is_open = False
        self._send = send
        self.account = account

    async def put(self, events: bytes) -> None:
        """Send complete events; waits while the client does not read."""
        if not self.is_open:
            self.is_open = True
            name = self.account.request_id.encode("latin-1", "replace")
            headers = [(b"content-type", self.media), *_HEADERS, (b"x-request-id", name)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self.account.begin_sending()
        await self._send({"type": "http.response.body", "body": events, "more_body": True})
        self.account.end_sending()

    async def end(self, events: bytes = b"data: [DONE]\n\n") -> None:
        """The last events."""
        await self.put(events)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
