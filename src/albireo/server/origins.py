"""Which pages a browser lets ask the server: those of the settings' allowed_origins, by the rules of CORS.

Used by settings.py, which reads them, and by app.py. Keys are asked for as of anybody: a page that may ask still needs
one. Does not know routes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from albireo.errors import ConfigError
from albireo.server.errors import HttpError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: A word for pages of this machine, by any port and scheme.
LOOPBACK = "loopback"
_LOOPBACK_PAGES = r"https?://(([a-z0-9-]+\.)*localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?"
_SAFE = ("GET", "HEAD", "OPTIONS")
_METHODS = ("GET", "HEAD", "POST", "DELETE")
#: Headers of answers that a page may read, beside those that any may.
_EXPOSED = ("x-request-id", "retry-after")


def parse_origins(values: Sequence[str]) -> tuple[str, ...]:
    """Each an origin, or a list of them in JSON, as vLLM takes it. Raises: ConfigError."""
    found: list[str] = []
    for value in values:
        if value.startswith("["):
            try:
                listed = json.loads(value)
            except ValueError:
                listed = None
            if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
                raise ConfigError(f"allowed_origins={value!r:.100} must be a list of texts in JSON")
            found += listed
        else:
            found.append(value)
    for origin in found:
        if origin not in ("*", "null", LOOPBACK) and not _is_origin(origin):
            raise ConfigError(
                f"allowed_origins={origin!r:.100} is no origin; write it as http://host:port without a path, or *, "
                f"null or {LOOPBACK}"
            )
    return tuple(found)


def behind_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application as pages of these origins may ask it, too. Args: origins: as parse_origins() returns them."""
    from starlette.middleware.cors import CORSMiddleware

    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=[origin for origin in origins if origin != LOOPBACK],
        allow_origin_regex=_LOOPBACK_PAGES if LOOPBACK in origins else None,
        allow_methods=_METHODS,
        allow_headers=("*",),
        allow_private_network=True,
        expose_headers=_EXPOSED,
    )


class WithoutStrangers:
    """An application that does nothing for pages that may not ask it.

    What a browser keeps back is the answer: it sends a request without a body, or with a text, for any page. One that
    changes something is refused where the browser says that it is another site's; who is no browser does not say so,
    and a page of this server's own is of its site whatever a proxy calls it.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        """Args: origins: as parse_origins() returns them."""
        self._app, self._origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _SAFE and not self._may_ask(scope):
            raise HttpError(
                403, "this page may not ask this server; --allowed-origins names those that may", code="forbidden"
            )
        await self._app(scope, receive, send)

    def _may_ask(self, scope: Scope) -> bool:
        told = {name: value for name, value in scope["headers"] if name in (b"origin", b"sec-fetch-site")}
        if told.get(b"sec-fetch-site") not in (b"cross-site", b"same-site"):
            return True
        origin = told.get(b"origin", b"null").decode("latin-1")
        return not self._origins.isdisjoint(("*", origin)) or (
            LOOPBACK in self._origins and re.fullmatch(_LOOPBACK_PAGES, origin) is not None
        )


def _is_origin(text: str) -> bool:
    """Whether a browser would send it as the origin of a page: so it is compared, to the letter."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return False
    return bool(re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", text)) and bool(url.hostname) and text == text.lower()
