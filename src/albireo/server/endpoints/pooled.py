"""POST /pooling: what the model makes of prompts, whatever that is: embeddings, or scores of its labels."""

from __future__ import annotations

from functools import partial

from albireo.engine_process.tracked import Tracked
from albireo.server.endpoints.embeddings import data_of
from albireo.server.endpoints.pooling import Asked, Head, PoolingEndpoint
from albireo.server.errors import unsupported
from albireo.server.pooling_intake import admitted_inputs, begin, pooling_params
from albireo.server.protocol.pooled import POOLED_NEUTRAL, Pooled, PooledList, PoolingRequest
from albireo.server.serving import Serving


def pooled(serving: Serving) -> PoolingEndpoint[PoolingRequest]:
    """The endpoint."""
    return PoolingEndpoint(serving, PoolingRequest, "pool", _ask)


async def _ask(serving: Serving, request: PoolingRequest) -> Asked:
    serving.check_open()
    task = request.task or serving.ready.pooling_rule.task
    begin(serving, request, POOLED_NEUTRAL, task)
    if task == "classify" and request.dimensions is not None:
        raise unsupported("dimensions", request.dimensions, "each label has its score; leave it out")
    pooling, special = serving.admission.pooling, request.add_special_tokens is not False
    params = pooling_params(serving, request, request.dimensions)
    make = partial(
        pooling.embedding if task == "embed" else pooling.classification, params=params, add_special_tokens=special
    )
    submissions, places = await admitted_inputs(serving, request, request.input, make)
    return Asked(submissions, places, partial(_answer, request.encoding_format == "base64"))


async def _answer(is_base64: bool, head: Head, requests: list[Tracked]) -> PooledList:
    return PooledList(head.id, head.created, head.model, await data_of(is_base64, requests, Pooled), head.usage)
