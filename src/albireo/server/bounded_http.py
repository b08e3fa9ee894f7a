"""uvicorn's HTTP protocol with a limit on the size of a request's head, and on how long it may take; and with answers
that clients of HTTP/1.0 can read.

Given to uvicorn by run.py. llhttp takes a head of any size; here one ends the connection with a 431, or after
HEAD_TIMEOUT_S without an answer. Bodies are bounded where they are read (body.py).
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

#: Largest request line and headers together, and most headers.
MAX_HEAD_BYTES, MAX_HEADERS = 64 << 10, 200
HEAD_TIMEOUT_S = 30.0
#: Key of a scope: what breaks the connection at once, without waiting for a client that does not read.
ABORT = "albireo.abort"


def _whole_answer(status: bytes, words: bytes) -> bytes:
    """An answer that ends the connection, with the body of an error as every other answer has it."""
    body = b'{"error":{"message":"%b","type":"invalid_request_error","param":null,"code":null}}' % words
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_TOO_LARGE = _whole_answer(b"431 Request Header Fields Too Large", b"the headers are too large")
_NOT_HTTP = _whole_answer(
    b"400 Bad Request",
    b"this is no request of HTTP/1.1: its first line, headers or chunks cannot be read; the connection is closed",
)


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    _is_in_head = True
    _num_head_bytes = 0
    _is_refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        was_in_head = self._is_in_head
        super().data_received(data)
        # A head that began in the middle of data is counted from the next data on.
        if was_in_head and self._is_in_head:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._begin_head()
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._is_in_head, self._num_head_bytes = False, 0
        self._end_head()
        if num_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse()
            return
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            # its task has not begun
            vars(self.cycle)["send"] = _Unchunked(self.cycle)

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """In place of uvicorn's plain text, and not in the middle of an answer, which it would be read as part of."""
        self._is_refused = True
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(_NOT_HTTP)
        self.transport.close()

    def _begin_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _end_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_in_head and not self.transport.is_closing():
            self.transport.close()

    def _refuse(self) -> None:
        self._is_refused = True
        if not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()


class _Unchunked:
    """Sends an answer to who knows no chunks: where no header says how long it is, it ends with the connection.

    uvicorn writes chunks to everybody, and a client of HTTP/1.0 takes their sizes for text.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._is_open = cycle, False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._is_open = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if self._is_open:
                self._cycle.chunked_encoding = False
        elif self._is_open:
            # each part is as long as what is left
            self._cycle.expected_content_length = len(message.get("body", b""))
        await RequestResponseCycle.send(self._cycle, message)
