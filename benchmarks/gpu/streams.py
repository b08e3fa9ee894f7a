"""Clients of a server: so many streams at once over loopback, each followed by another, until they are told to stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import numpy as np


async def read_streams(
    port: int, num: int, prompt: int, output: int, vocab: int, is_over: Callable[[], bool]
) -> tuple[int, int]:
    """Returns: events that came, and answers that were complete. Raises: when the server refuses one."""
    found = await asyncio.gather(*(_client(port, i, prompt, output, vocab, is_over) for i in range(num)))
    return sum(events for events, _ in found), sum(ends for _, ends in found)


async def _client(
    port: int, number: int, prompt: int, output: int, vocab: int, is_over: Callable[[], bool]
) -> tuple[int, int]:
    rng, events, ends = np.random.default_rng(number), 0, 0
    # of all ages, so that they do not end together
    length = max(1, output * (number + 1) // (number + 2))
    while not is_over():
        ids = rng.integers(3, vocab, prompt).tolist()
        asked = {"model": "random", "prompt": ids, "max_tokens": length, "temperature": 0, "ignore_eos": True}
        body = json.dumps(asked | {"stream": True}).encode()
        lines = ("POST /v1/completions HTTP/1.1", "host: 127.0.0.1", "content-type: application/json")
        head = "\r\n".join((*lines, "connection: close", f"content-length: {len(body)}", "", ""))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"the server answers {status.decode().strip()}: {(await reader.read())[-300:]!r}")
        async for line in reader:
            events += line.startswith(b"data: {")
            ends += line.startswith(b"data: [DONE]")
            if is_over():
                break
        writer.close()
        length = output
    return events, ends
