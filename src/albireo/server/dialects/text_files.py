"""A file of a request, as OpenAI's `input_file` has it: what it says, behind its name, as a text of the conversation.

Used by responses.py beside it. Of what is no text nothing is guessed.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from albireo.server.errors import HttpError

_URL = re.compile(r"data:([^,]{0,200}),", re.ASCII)


def text_of_file(where: str, part: dict[str, Any]) -> str:
    """Raises: HttpError 400 for one that is elsewhere, and for what is no text in UTF-8."""
    for name in ("file_id", "file_url"):
        if part.get(name):
            raise _wrong(where, f"has {name}, and files are not fetched; send it as file_data, in base64")
    data, title = part.get("file_data"), part.get("filename")
    if not isinstance(data, str) or not data:
        raise _wrong(where, "needs file_data, the file in base64")
    if title is not None and not isinstance(title, str):
        raise _wrong(where, f"has filename={title!r:.40}, which must be a text")
    return "\n".join([*([title] if title else []), _said(where, data)])


def _said(where: str, data: str) -> str:
    url = _URL.match(data)
    media = url[1].partition(";")[0] if url else ""
    if url is not None and not url[1].endswith(";base64"):
        raise _wrong(where, "has file_data that is no data:TYPE;base64,…")
    try:
        raw = base64.b64decode(data[url.end() :] if url else data, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(where, "has file_data that is no base64") from None
    if raw.startswith(b"%PDF-") or media == "application/pdf":
        raise _wrong(where, "is a PDF, and texts are read; send what it says as a text, or its pages as pictures")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        kind = f" of type {media!r:.60}" if media else ""
        raise _wrong(where, f"is a file{kind} that is no text in UTF-8; send what it says as a text")
    return text


def _wrong(where: str, what: str) -> HttpError:
    return HttpError(400, f"{where}: an input_file {what}", param="input", code="unsupported")
