"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from albireo.engine_process.tracked import Tracked
from albireo.server.endpoints.pooling import Asked, Head, PoolingEndpoint, values_of
from albireo.server.packing import Packing
from albireo.server.pooling_intake import admitted_inputs, begin, pooling_params, prompt_name
from albireo.server.protocol.embeddings import Embedding, EmbeddingList, EmbeddingRequest
from albireo.server.serving import Serving

_ENCODER = msgspec.json.Encoder()
#: Bytes of embeddings that are written as JSON before the streams beside get their turn; some milliseconds.
_BYTES_AT_ONCE = 1 << 18


def embeddings(serving: Serving) -> PoolingEndpoint[EmbeddingRequest]:
    """The endpoint."""
    return PoolingEndpoint(serving, EmbeddingRequest, "embd", _ask)


async def _ask(serving: Serving, request: EmbeddingRequest) -> Asked:
    return await asked_of(serving, request, partial(_answer, Packing.of(request)))


async def asked_of(
    serving: Serving, request: EmbeddingRequest, answer: Callable[[Head, list[Tracked]], Awaitable[Any]]
) -> Asked:
    """What a request asks for. Args: answer: see Asked. Raises: HttpError."""
    begin(serving, request, task="embed")
    params = pooling_params(serving, request, request.dimensions)
    special = request.add_special_tokens is not False
    pooling, name = serving.admission.pooling, prompt_name(request)
    make = partial(pooling.embedding, params=params, add_special_tokens=special, prompt_name=name)
    submissions, places = await admitted_inputs(serving, request, make)
    return Asked(submissions, places, answer)


async def _answer(packing: Packing | None, head: Head, requests: list[Tracked]) -> EmbeddingList:
    return EmbeddingList(head.id, head.created, head.model, await data_of(packing, requests, Embedding), head.usage)


async def data_of(
    packing: Packing | None, requests: list[Tracked], kind: Callable[[int, Any], Any], widths: Sequence[int] = ()
) -> Any:
    """For each request its place and its values, as JSON already.

    Args:
        packing: how base64 has them; None: as numbers.
        kind: makes one of both.
        widths: of each request, where each token has a list of so many; 0: it has one.
    """
    found, num_bytes = [], 0
    for index, tracked in enumerate(requests):
        raw = tracked.embedding or b""
        shown: Any
        if packing is not None:
            shown = base64.b64encode(packing.packed(raw)).decode("ascii")
        elif widths and widths[index]:
            shown, raw = await _rows(raw, widths[index]), b""
        else:
            shown = values_of(tracked)
        found.append(msgspec.Raw(_ENCODER.encode(kind(index, shown))))
        num_bytes += len(raw)
        if num_bytes > _BYTES_AT_ONCE:
            num_bytes = 0
            await asyncio.sleep(0)
    return found


async def _rows(raw: bytes, width: int) -> msgspec.Raw:
    """Lists of so many values, as JSON; others get their turn within: of one prompt there may be millions."""
    values, pieces = array("f", raw), list[bytes]()
    step = max(1, _BYTES_AT_ONCE // (values.itemsize * width)) * width
    for start in range(0, len(values), step):
        some = values[start : start + step].tolist()
        pieces.append(_ENCODER.encode([some[at : at + width] for at in range(0, len(some), width)])[1:-1])
        await asyncio.sleep(0)
    return msgspec.Raw(b"[" + b",".join(pieces) + b"]")
