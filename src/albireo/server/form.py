"""A body of multipart/form-data -> its fields and its file, when all of it is there.

Used by endpoints whose files are read at once; endpoints/files.py keeps files of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from albireo.server.errors import HttpError
from albireo.server.multipart import Multipart, Part

#: Longest value of a field; the prompt of a transcription is the longest there is.
MAX_FIELD_BYTES = 1 << 18


@dataclass(slots=True)
class Form:
    """Fields: values: of each field, in order; a name may come again. file: None: there is none."""

    values: dict[str, list[str]] = field(default_factory=dict)
    file: bytes | None = None


def read_form(content_type: str, body: bytes) -> Form:
    """Args: content_type: of the request. Raises: HttpError 400 for what is no form, or has several files."""
    parts, form = Multipart(content_type), Form()
    name: str | None = None
    found: list[bytes] = []

    def close() -> None:
        if name is None:
            return
        data = b"".join(found)
        if name == "file":
            form.file = data
            return
        if len(data) > MAX_FIELD_BYTES:
            raise HttpError(400, f"{name:.80} is longer than {MAX_FIELD_BYTES:,} bytes", param=name[:80])
        try:
            form.values.setdefault(name, []).append(data.decode())
        except UnicodeDecodeError:
            raise HttpError(400, f"{name:.80} is not UTF-8", param=name[:80]) from None

    for each in parts.feed(body):
        if not isinstance(each, Part):
            found.append(each)
            continue
        close()
        if each.name == "file" and (name == "file" or form.file is not None):
            raise HttpError(400, "the form has several files; send one", param="file")
        if each.filename is not None and each.name != "file":
            raise HttpError(400, f"{each.name:.80} is a file; the file's field is named file", param=each.name[:80])
        name, found = each.name, []
    close()
    if not parts.is_over:
        raise HttpError(400, "the form ends without its last boundary", code="invalid_form")
    return form
