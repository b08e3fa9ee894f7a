"""Requests below the path that a proxy puts before a server's own, as --root-path says it.

A proxy may leave that path in what it hands on, or take it off; both are answered. Used by app.py, outside of all else,
so that nothing behind it knows.
"""

from __future__ import annotations

import re

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from albireo.errors import ConfigError

_ALLOWED = re.compile(r"(/[A-Za-z0-9._~-]+)*")
#: How this server's own paths begin: of a request below one of these nobody could tell which is meant.
OWN = frozenset((
    "abort_requests", "api", "apply-template", "classify", "completion", "decode", "detokenize", "docs", "embed",
    "embed_all", "embed_sparse", "health", "inference", "infill", "info", "invocations", "is_paused", "is_sleeping",
    "load", "metrics", "openapi.json", "page", "pause", "ping", "pooling", "predict", "props", "rerank",
    "reset_prefix_cache", "resume", "score", "similarity", "sleep", "slots", "tokenize", "tokenizer_info", "v1",
    "v2", "version", "wake_up",
))  # fmt: skip


def parse_root_path(value: str) -> str:
    """A root path without a slash at its end; "" where there is none. Raises: ConfigError."""
    path = value.rstrip("/")
    if not _ALLOWED.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ConfigError(
            f"root_path={value!r:.100} is no path that a proxy can have; it begins with a slash and has letters, "
            "digits and -._~ between slashes, as /llm"
        )
    if OWN.intersection(path.split("/")[1:2]):
        raise ConfigError(f"root_path={value!r:.100} begins as routes of this server do; take another, as /llm")
    return path


class BelowRoot:
    """An application whose routes are there with the root path before them, too."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        """Args: root: as parse_root_path gives it, not empty."""
        self._app, self._root = app, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the root path off, if it is there."""
        path = scope.get("path", "")
        if path == self._root:  # the page's files lie beside what ends with a slash
            query = scope["query_string"].decode("latin-1")
            return await RedirectResponse(self._root + "/" + (query and f"?{query}"))(scope, receive, send)
        if path.startswith(self._root + "/"):
            raw = scope.get("raw_path") or b""
            below = raw.removeprefix(self._root.encode())
            scope = {**scope, "path": path[len(self._root) :], "raw_path": below}
        await self._app(scope, receive, send)
