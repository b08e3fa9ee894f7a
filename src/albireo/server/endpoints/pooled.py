"""POST /pooling: what the model makes of prompts, whatever that is: embeddings, or scores of its labels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.server.endpoints.embeddings import data_of
from albireo.server.endpoints.pooling import Asked, Head, PoolingEndpoint
from albireo.server.errors import unsupported
from albireo.server.packing import Packing
from albireo.server.pooling_intake import admitted_inputs, begin, pooling_params, prompt_name
from albireo.server.protocol.pooled import POOLED_NEUTRAL, Pooled, PooledList, PoolingRequest
from albireo.server.serving import Serving


def pooled(serving: Serving) -> PoolingEndpoint[PoolingRequest]:
    """The endpoint."""
    return PoolingEndpoint(serving, PoolingRequest, "pool", _ask)


async def _ask(serving: Serving, request: PoolingRequest) -> Asked:
    return await asked_of(serving, request, partial(_answer, Packing.of(request)))


async def asked_of(
    serving: Serving,
    request: PoolingRequest,
    answer: Callable[[list[Submission], Head, list[Tracked]], Awaitable[Any]],
) -> Asked:
    """What a request asks for. Args: answer: see Asked; of what is run, too. Raises: HttpError."""
    serving.check_open()
    begin(serving, request, POOLED_NEUTRAL, request.task)
    if serving.ready.pooling_rule.labels and request.dimensions is not None:
        raise unsupported("dimensions", request.dimensions, "each label has its score; leave it out")
    params, special = pooling_params(serving, request, request.dimensions), request.add_special_tokens is not False
    if request.task in ("token_embed", "token_classify") and request.pooling_type is None:
        params = replace(params, pooling_type=None)  # the server's default is that of whole texts
    name, pooling = prompt_name(request), serving.admission.pooling
    make = partial(pooling.pooled, params=params, task=request.task, add_special_tokens=special, prompt_name=name)
    submissions, places = await admitted_inputs(serving, request, make)
    return Asked(submissions, places, partial(answer, submissions))


def widths_of(submissions: list[Submission], requests: list[Tracked]) -> list[int]:
    """Of each request how many values a token has; 0: the whole has some."""
    return [
        len(tracked.embedding or b"") // 4 // len(made.prompt_token_ids) if made.is_of_tokens else 0
        for made, tracked in zip(submissions, requests, strict=True)
    ]


async def _answer(
    packing: Packing | None, submissions: list[Submission], head: Head, requests: list[Tracked]
) -> PooledList:
    widths = widths_of(submissions, requests)
    return PooledList(head.id, head.created, head.model, await data_of(packing, requests, Pooled, widths), head.usage)
