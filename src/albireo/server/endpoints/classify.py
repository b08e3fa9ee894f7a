"""POST /classify."""

from __future__ import annotations

from functools import partial

from albireo.engine_process.tracked import Tracked
from albireo.server.endpoints.pooling import Asked, Head, PoolingEndpoint, values_of
from albireo.server.pooling_intake import admitted_inputs, begin, pooling_params
from albireo.server.protocol.classify import Classes, ClassifyRequest, ClassList
from albireo.server.serving import Serving


def classes(serving: Serving) -> PoolingEndpoint[ClassifyRequest]:
    """The endpoint."""
    return PoolingEndpoint(serving, ClassifyRequest, "classify", _ask)


async def _ask(serving: Serving, request: ClassifyRequest) -> Asked:
    begin(serving, request, task="classify")
    special = request.add_special_tokens is not False
    params = pooling_params(serving, request)
    make = partial(serving.admission.pooling.classification, params=params, add_special_tokens=special)
    submissions, places = await admitted_inputs(serving, request, make)
    return Asked(submissions, places, partial(_answer, serving.ready.pooling_rule.labels))


async def _answer(labels: tuple[str, ...], head: Head, requests: list[Tracked]) -> ClassList:
    data = []
    for index, tracked in enumerate(requests):
        probs = list(values_of(tracked))
        data.append(Classes(index, labels[probs.index(max(probs))], probs, len(probs)))
    return ClassList(head.id, head.created, head.model, data, head.usage)
