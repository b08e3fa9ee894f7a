"""The page at /: a playground, and a live view of the engine; its files, and the headers that keep it to itself.

The files need no key and hold no data: what they show comes from the protocol's own routes, which need one. Does not
know what they do (page/).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FILES = Path(__file__).parents[1] / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MODULES = (
    "app", "api", "playground", "attachments", "pictures", "sounds", "wav", "snippets", "load", "live", "blocks",
    "requests", "steps", "charts", "draw", "models",
)  # fmt: skip

#: Path -> file: all there are, so that nothing else in the folder is ever served.
ASSETS = {
    "/": "index.html",
    **{f"/page/{name}": name for name in ("page.css", "icon.svg", *(f"{module}.js" for module in _MODULES))},
}

#: Scripts, styles and connections of this server only; nothing inline, no frames around it, no forms that leave. Sounds
#: that people attach are played from their own files (blob:), which reach nobody.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Page:
    """One file, read once."""

    def __init__(self, path: str) -> None:
        """Args: path: one of ASSETS."""
        file = _FILES / ASSETS[path]
        self._content = file.read_bytes()
        self._type = f"{_TYPES[file.suffix]}; charset=utf-8"
        self._headers = {**HEADERS, "etag": f'"{hashlib.sha256(self._content).hexdigest()[:16]}"'}

    async def file(self, http: Request) -> Response:
        """The file; 304 to a browser that has it."""
        if http.headers.get("if-none-match") == self._headers["etag"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers, media_type=self._type)
