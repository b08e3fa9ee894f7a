"""The parts of a multipart/form-data body, as they come: RFC 7578, of which a file of any size takes no memory.

Used by endpoints/files.py. Does not know what the parts are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from albireo.server.errors import HttpError

#: Largest headers of one part, and most parts.
MAX_HEAD_BYTES, MAX_PARTS = 8 << 10, 16
_BOUNDARY = re.compile(rb"[ -~]{1,70}")


@dataclass(frozen=True, slots=True)
class Part:
    """A part begins. Fields: filename: None: it is a field of a form, no file."""

    name: str
    filename: str | None


class Multipart:
    """Takes a body piece by piece. Invariant: it holds no more than a boundary's length, or one part's headers."""

    def __init__(self, content_type: str) -> None:
        """Raises: HttpError 400 for another type, or one without a boundary."""
        header = Message()
        header["content-type"] = content_type
        boundary = str(header.get_param("boundary") or "").encode("utf-8", "replace")
        if header.get_content_type() != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
            raise HttpError(
                400,
                f"content-type={content_type!r:.100} must be multipart/form-data with a boundary",
                code="invalid_form",
            )
        self._mark = b"\r\n--" + boundary
        #: The first boundary may be at the very beginning.
        self._held = bytearray(b"\r\n")
        self._take = self._preamble
        self._num_parts = 0
        self.is_over = False

    def feed(self, data: bytes) -> Iterator[Part | bytes]:
        """What these bytes bring: parts that begin, and the bytes of the one that began last. Raises: HttpError 400."""
        self._held += data
        while (found := self._take()) is not None:
            if found != b"":
                yield found

    # Each takes something from what is held. Returns: what it is, b"": nothing to tell; None: more has to come.

    def _preamble(self) -> Part | bytes | None:
        return b"" if self._until_mark() is not None else None

    def _behind_mark(self) -> Part | bytes | None:
        held = self._held
        if held[:2] == b"--":
            self.is_over, self._take = True, self._epilogue
            return b""
        line, end, _ = held.partition(b"\r\n")
        if not end:
            if len(held) > MAX_HEAD_BYTES:
                raise _broken("a boundary is not at the end of a line")
            return None
        if line.strip(b" \t"):
            raise _broken("a boundary is not at the end of a line")
        del held[: len(line)]  # the line's end stays, so that a part without headers ends its head like others
        self._take = self._head
        return b""

    def _head(self) -> Part | bytes | None:
        head, end, _ = self._held.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES:
            raise _broken(f"the headers of a part are larger than {MAX_HEAD_BYTES} bytes")
        if not end:
            return None
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise _broken(f"there are more than {MAX_PARTS} parts")
        del self._held[: len(head) + 4]
        self._take = self._body
        return _part(bytes(head))

    def _body(self) -> Part | bytes | None:
        return self._until_mark()

    def _epilogue(self) -> Part | bytes | None:
        self._held.clear()
        return None

    def _until_mark(self) -> bytes | None:
        """The bytes before the next boundary, as far as they are there; b"": it is there; None: more has to come."""
        held, mark = self._held, self._mark
        at = held.find(mark)
        if at == 0:
            del held[: len(mark)]
            self._take = self._behind_mark
            return b""
        num = at if at > 0 else len(held) - len(mark) + 1
        if num <= 0:
            return None
        found = bytes(held[:num])
        del held[:num]
        return found


def _part(head: bytes) -> Part:
    header = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-disposition":
            header["content-disposition"] = value.strip()
    name, filename = header.get_param("name", header="content-disposition"), header.get_filename()
    if header.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise _broken("a part has no name")
    return Part(name, filename)


def _broken(what: str) -> HttpError:
    return HttpError(400, f"the body is no multipart/form-data: {what}", code="invalid_form")
