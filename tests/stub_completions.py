"""A small server that speaks as much of OpenAI's completions as a load client asks for, and says what it was asked.

Used by the tests of bench serve. Answers are written chunk by chunk; what goes before each is the test's.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Pace = Callable[[int], Awaitable[None]]


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """status, kind and chunks of the body; pace(i): awaited before chunk i; breaks_off: the connection is cut."""

    chunks: Sequence[bytes]
    status: int = 200
    kind: bytes = b"text/event-stream"
    pace: Pace | None = None
    breaks_off: bool = False


@dataclass
class StubServer:
    """answer: what becomes of each completion request; models: the list of models."""

    answer: Callable[[Asked], Answer]
    models: Any = field(default_factory=lambda: {"data": [{"id": "stub", "root": "/no/such/place"}]})
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> StubServer:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(first.split()[1], headers, json.loads(body) if body else None)
        self.asked.append(asked)
        models = Answer([json.dumps(self.models).encode()])
        answer = models if asked.path == "/v1/models" else self.answer(asked)
        writer.write(b"HTTP/1.1 %d Said\r\nContent-Type: %s\r\n" % (answer.status, answer.kind))
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for i, chunk in enumerate(answer.chunks):
            if answer.pace is not None:
                await answer.pace(i)
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        if answer.breaks_off:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@contextmanager
def running(server: StubServer) -> Iterator[StubServer]:
    """The server in a thread of its own."""
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        async with server:
            stopped, loop = asyncio.Event(), asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
            ready.set()
            await stopped.wait()

    # asyncio.run() cancels what connections are left.
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        stop[0]()
        thread.join()


def event(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def text_chunk(text: str, finish_reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]})


def usage_chunk(num_prompt: int, num_output: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": num_prompt, "completion_tokens": num_output}})


def completion(num_tokens: int, num_prompt: int = 7) -> list[bytes]:
    """A whole answer of so many tokens, one a chunk."""
    texts = [text_chunk(" word", "length" if i == num_tokens - 1 else None) for i in range(num_tokens)]
    return [*texts, usage_chunk(num_prompt, num_tokens), event(b"[DONE]")]
