"""The outermost layer: who may ask, what is logged, and what an exception becomes.

Wraps the application. A request without a key gets in nowhere: the exceptions are named, everything else is denied,
whatever its path, method or spelling. Does not know routes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from albireo.server.errors import HttpError

_LOG = logging.getLogger("albireo.server")
_ENCODER = msgspec.json.Encoder()

#: What endpoints leave in scope for the log: a dict of words and numbers, never text of prompts.
ACCOUNT = "albireo.account"
#: Asked for every few seconds by machines; like the page's files in the log only when something is wrong with them.
_PROBES = frozenset(["/health", "/ping", "/metrics"])


class Guard:
    """Invariant: without one of the keys only GET and HEAD of open paths, spelled so, reach the application."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], open_paths: Sequence[str], logs: bool) -> None:
        """Args: open_paths: what needs no key: /health, and the files of the page, which hold no data."""
        self._app = app
        self._open = {path: path.encode("ascii") for path in open_paths}
        self._keys = [_digest(key.encode()) for key in keys]
        self._logs = logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        account: dict[str, Any] = {}
        scope[ACCOUNT] = account
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._may_pass(scope):
                await self._app(scope, receive, noting)
            else:
                await _denied().response(scope["path"])(scope, receive, noting)
        except HttpError as error:
            if status == 0:
                await error.response(scope["path"])(scope, receive, noting)
        except Exception as error:
            _LOG.error("a request failed", exc_info=error)
            if status:
                raise  # the connection is closed in the middle of the answer
            internal = HttpError(500, "internal error; the server's log has more", code="internal")
            await internal.response(scope["path"])(scope, receive, noting)
        finally:
            is_file = scope["path"] in self._open and scope["method"] in ("GET", "HEAD")
            is_dull = scope["path"] in _PROBES or is_file
            if self._logs and not (is_dull and status in (200, 304, 503)):
                self._log(scope, status, account, time.monotonic() - started_s)

    def _may_pass(self, scope: Scope) -> bool:
        if not self._keys:
            return True
        spelling = self._open.get(scope["path"])
        if spelling is not None and scope.get("raw_path") == spelling and scope["method"] in ("GET", "HEAD"):
            return True
        return any([self._is_key(given) for given in _given(scope)])

    def _is_key(self, given: bytes) -> bool:
        # All are compared, and by digests of one length, so that time tells nothing.
        digest = _digest(given)
        return any([hmac.compare_digest(digest, key) for key in self._keys])

    def _log(self, scope: Scope, status: int, account: dict[str, Any], wall_s: float) -> None:
        line = {
            "time": round(time.time(), 3),
            "event": "request",
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "wall_s": round(wall_s, 6),
            **account,
        }
        _LOG.info("%s", _ENCODER.encode(line).decode())


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _given(scope: Scope) -> list[bytes]:
    """Keys that a request brings: as a bearer, or as Anthropic's clients send it."""
    found = []
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            found.append(value[7:].strip())
        elif name == b"x-api-key":
            found.append(value.strip())
    return found[:4]


def _denied() -> HttpError:
    return HttpError(
        401,
        "an API key is needed: send the header 'Authorization: Bearer KEY'",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )
