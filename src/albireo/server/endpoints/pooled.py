"""POST /pooling: what the model makes of prompts, whatever that is: embeddings, or scores of its labels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.server.endpoints.embeddings import data_of
from albireo.server.endpoints.pooling import Asked, Head, PoolingEndpoint
from albireo.server.errors import unsupported
from albireo.server.packing import Packing
from albireo.server.pooling_intake import admitted_inputs, begin, pooling_params
from albireo.server.protocol.pooled import POOLED_NEUTRAL, Pooled, PooledList, PoolingRequest
from albireo.server.serving import Serving


def pooled(serving: Serving) -> PoolingEndpoint[PoolingRequest]:
    """The endpoint."""
    return PoolingEndpoint(serving, PoolingRequest, "pool", _ask)


async def _ask(serving: Serving, request: PoolingRequest) -> Asked:
    serving.check_open()
    begin(serving, request, POOLED_NEUTRAL, request.task)
    if serving.ready.pooling_rule.labels and request.dimensions is not None:
        raise unsupported("dimensions", request.dimensions, "each label has its score; leave it out")
    params, special = pooling_params(serving, request, request.dimensions), request.add_special_tokens is not False
    if request.task in ("token_embed", "token_classify") and request.pooling_type is None:
        params = replace(params, pooling_type=None)  # the server's default is that of whole texts
    make = partial(serving.admission.pooling.pooled, params=params, task=request.task, add_special_tokens=special)
    submissions, places = await admitted_inputs(serving, request, make)
    return Asked(submissions, places, partial(_answer, Packing.of(request), submissions))


async def _answer(
    packing: Packing | None, submissions: list[Submission], head: Head, requests: list[Tracked]
) -> PooledList:
    widths = [
        len(tracked.embedding or b"") // 4 // len(made.prompt_token_ids) if made.is_of_tokens else 0
        for made, tracked in zip(submissions, requests, strict=True)
    ]
    return PooledList(head.id, head.created, head.model, await data_of(packing, requests, Pooled, widths), head.usage)
