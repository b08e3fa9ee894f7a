"""Lists that are told in pages, as OpenAI has them: `limit` of them, those behind `after`, in an `order`.

Used by files.py and batches.py beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.requests import Request

from albireo.server.errors import HttpError


class _Named(Protocol):
    id: str


N = TypeVar("N", bound=_Named)


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked for. Fields: after: an id, of something that may be gone; None: from the first one on."""

    limit: int
    after: str | None
    is_ascending: bool

    def of(self, found: Sequence[N]) -> tuple[list[N], bool]:
        """Args: found: ids ascend. Returns: those of the page, and whether there are more."""
        after = self.after
        if self.is_ascending:
            left = [each for each in found if after is None or each.id > after]
        else:
            left = [each for each in reversed(found) if after is None or each.id < after]
        return left[: self.limit], len(left) > self.limit


def asked_page(http: Request, ids: re.Pattern[str], *, limit: int, max_limit: int, has_order: bool) -> Page:
    """Args: ids: what one looks like; limit: unless it is said. Raises: HttpError 400."""
    query = http.query_params
    asked, after, order = query.get("limit", str(limit)), query.get("after"), query.get("order", "desc")
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10 and 1 <= int(asked) <= max_limit):
        raise HttpError(400, f"limit={asked!r:.40} must be a number from 1 to {max_limit}", param="limit")
    if after is not None and not ids.fullmatch(after):
        raise HttpError(400, f"after={after!r:.80} must be an id of the list", param="after")
    if order not in (("asc", "desc") if has_order else ("desc",)):
        words = "asc or desc" if has_order else "desc"
        raise HttpError(400, f"order={order!r:.40} must be {words}", param="order")
    return Page(int(asked), after, order == "asc")
