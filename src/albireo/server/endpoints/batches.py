"""/v1/batches: create, list, get and cancel."""

from __future__ import annotations

import re
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo.server.batches.runner import Batches
from albireo.server.batches.store import BATCH_ID
from albireo.server.body import parse
from albireo.server.endpoints.files import answer, enabled, no_space
from albireo.server.endpoints.paging import asked_page
from albireo.server.errors import HttpError, shutting_down, unsupported
from albireo.server.protocol.batches import BATCH_NEUTRAL, ENDPOINTS, Batch, BatchList, BatchRequest
from albireo.server.protocol.fields import unneutral
from albireo.server.serving import Serving

_DECODER = msgspec.json.Decoder(BatchRequest)
_WINDOW = re.compile(r"([1-9][0-9]{0,2})h")
#: Two weeks.
MAX_HOURS = 336


class BatchEndpoints:
    """All of them."""

    def __init__(self, serving: Serving, batches: Batches | None) -> None:
        self._serving, self._batches = serving, batches

    async def create(self, http: Request) -> Response:
        """POST /v1/batches."""
        batches, store = enabled(self._batches), enabled(self._batches).store
        async with self._serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _DECODER)
        if self._serving.is_draining:
            raise shutting_down()
        if asked := unneutral(request, BATCH_NEUTRAL):
            raise unsupported(*asked, "delete files when they are needed no more")
        if request.endpoint not in ENDPOINTS:
            words = f"endpoint={request.endpoint!r:.80} is not supported; choose one of {', '.join(ENDPOINTS)}"
            raise HttpError(400, words, param="endpoint", code="unsupported")
        hours = _hours(request.completion_window)
        given = store.file(request.input_file_id, "input_file_id")
        if given.purpose != "batch":
            words = f"the file {given.id} has the purpose {given.purpose}; it must be batch"
            raise HttpError(400, words, param="input_file_id", code="invalid_value")
        now = int(time.time())
        batch = Batch(
            id=store.new_id("batch_"),
            endpoint=request.endpoint,
            input_file_id=given.id,
            completion_window=request.completion_window,
            created_at=now,
            expires_at=now + hours * 3600,
            metadata=request.metadata,
        )
        try:
            await batches.add(batch)
        except OSError as error:
            raise no_space(error) from None
        return answer(batch)

    async def list(self, http: Request) -> Response:
        """GET /v1/batches."""
        store = enabled(self._batches).store
        page = asked_page(http, BATCH_ID, limit=20, max_limit=100, has_order=False)
        shown, has_more = page.of([store.records[name].batch for name in sorted(store.records)])
        first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
        return answer(BatchList(shown, first, last, has_more))

    async def one(self, http: Request) -> Response:
        """GET /v1/batches/{id}."""
        return answer(enabled(self._batches).store.record(http.path_params["name"]).batch)

    async def cancel(self, http: Request) -> Response:
        """POST /v1/batches/{id}/cancel."""
        batches = enabled(self._batches)
        record = batches.store.record(http.path_params["name"])
        try:
            await batches.cancel(record)
        except OSError as error:
            raise no_space(error) from None
        return answer(record.batch)


def _hours(window: str) -> int:
    """Raises: HttpError 400."""
    found = _WINDOW.fullmatch(window)
    hours = int(found.group(1)) if found else 0
    if not 1 <= hours <= MAX_HOURS:
        words = f"completion_window={window!r:.40} must be hours, such as 24h, at most {MAX_HOURS}h"
        raise HttpError(400, words, param="completion_window", code="invalid_value")
    return hours
