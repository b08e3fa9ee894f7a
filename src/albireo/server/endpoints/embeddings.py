"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.engine_process.tracked import Tracked
from albireo.server.body import ClientGone, parse
from albireo.server.embedding_intake import embeddings
from albireo.server.generation import Generation, new_id
from albireo.server.protocol.embeddings import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from albireo.server.serving import Serving

_DECODER = msgspec.json.Decoder(EmbeddingRequest)
_ENCODER = msgspec.json.Encoder()
#: Bytes of embeddings that are written as JSON before the streams beside get their turn; some milliseconds.
_BYTES_AT_ONCE = 1 << 18


class Embeddings:
    """The endpoint, as an ASGI application."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_s = time.monotonic()
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request = parse(body, _DECODER)
                submissions = await embeddings(serving, request)
            name = new_id("embd", request.request_id)
            async with Generation(
                serving,
                scope,
                receive,
                name,
                submissions,
                priority=request.priority or 0,
                received_s=received_s,
                wants_stream=False,
            ) as generation:
                await generation.finished()
                num_tokens = sum(len(made.prompt_token_ids) for made in submissions)
                answer = EmbeddingList(
                    name,
                    int(time.time()),
                    request.model or serving.names[0],
                    await _data(generation.requests, request.encoding_format == "base64"),
                    EmbeddingUsage(num_tokens, num_tokens),
                )
                whole = _ENCODER.encode(answer)
                await generation.answer(Response(whole, 200, {"x-request-id": name}, "application/json"), send)
        except ClientGone:
            return


async def _data(requests: list[Tracked], is_base64: bool) -> Any:
    """An Embedding for each request, as JSON already."""
    found, num_bytes = [], 0
    for index, tracked in enumerate(requests):
        values = tracked.embedding
        assert values is not None, "it ended well"
        shown = base64.b64encode(values).decode("ascii") if is_base64 else _numbers(values)
        found.append(msgspec.Raw(_ENCODER.encode(Embedding(index, shown))))
        num_bytes += len(values)
        if num_bytes > _BYTES_AT_ONCE:
            num_bytes = 0
            await asyncio.sleep(0)
    return found


def _numbers(values: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(values) // 4}f", values))
