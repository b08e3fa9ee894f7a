"""The input of a batch: whether each line of a file is a request, and the lines one after the other.

Used by runner.py and by the command run-batch. Does not know what a body asks for. It blocks, for as long as the file
is: meant for a thread, and lets the event loop have its turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from albireo.server.protocol.batches import ENDPOINTS, BatchError, InputLine

_DECODER = msgspec.json.Decoder(InputLine)
_MODEL = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: What is wrong is told so many times.
MAX_ERRORS = 50
#: Around a body there is at most so much: method, url and custom_id.
_AROUND = 16 << 10
#: Bytes after which other threads get a turn.
_BYTES_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Fields: max_bytes: of a file; max_lines: of a file; max_body_bytes: of a line's body."""

    max_bytes: int
    max_lines: int
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class Line:
    """One request. Fields: number: of its line, from 1."""

    number: int
    custom_id: str
    url: str
    body: bytes


@dataclass(slots=True)
class Checked:
    """What a file holds. Fields: model: the one of the first line; numbers: custom_id to line; errors: empty when all
    can be run."""

    num_lines: int = 0
    model: str | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    errors: list[BatchError] = field(default_factory=list)


class BadLine(Exception):
    """No request of a batch."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


def check(path: Path, endpoint: str | None, limits: Limits) -> Checked:
    """Read all of a file. Args: endpoint: the one that each line has to ask for; None: any of ENDPOINTS."""
    found = Checked()
    for number, data in _numbered(path, limits):
        try:
            line = _parsed(number, data, endpoint, limits)
            if (earlier := found.numbers.setdefault(line.custom_id, number)) != number:
                words = f"the custom_id {line.custom_id!r:.100} is that of line {earlier} already; give each its own"
                raise BadLine("duplicate_custom_id", words, "custom_id")
        except BadLine as error:
            found.errors.append(BatchError(error.code, str(error), number, error.param))
            if len(found.errors) == MAX_ERRORS:
                return found
            continue
        if found.num_lines == 0:
            found.model = _model(line.body)
        found.num_lines += 1
        if found.num_lines > limits.max_lines:
            words = f"the file has more than {limits.max_lines} requests; make several files of it"
            found.errors.append(BatchError("too_many_lines", words, number))
            return found
    if not found.num_lines and not found.errors:
        found.errors.append(BatchError("empty_file", "the file has no requests; write one a line, as JSON"))
    return found


def read(path: Path, endpoint: str | None, limits: Limits) -> Iterator[Line]:
    """The lines of a file that was checked. Raises: BadLine when it is another one by now."""
    for number, data in _numbered(path, limits):
        yield _parsed(number, data, endpoint, limits)


def _numbered(path: Path, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, each cut behind what is too long."""
    number, most = 0, limits.max_body_bytes + _AROUND
    num_unseen = 0
    with open(path, "rb") as file:
        while data := file.readline(most + 1):
            number += 1
            rest = data
            while len(rest) > most and not rest.endswith(b"\n"):
                rest = file.readline(most + 1)
            if number == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            if data.strip():
                yield number, data
            num_unseen += len(data)
            if num_unseen >= _BYTES_AT_ONCE:
                num_unseen = 0
                time.sleep(0)


def _parsed(number: int, data: bytes, endpoint: str | None, limits: Limits) -> Line:
    if len(data) > limits.max_body_bytes + _AROUND:
        raise BadLine("line_too_long", _too_long(limits))
    try:
        line = _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise BadLine("invalid_line", f"the line is no request of a batch: {error!s:.300}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine("invalid_json_line", f"the line is no JSON: {error!s:.200}") from None
    if line.method != "POST":
        raise BadLine("invalid_method", f"method={line.method!r:.40} is not allowed; it must be POST", "method")
    if line.url not in ENDPOINTS if endpoint is None else line.url != endpoint:
        known = f"one of {', '.join(ENDPOINTS)}" if endpoint is None else f"the batch's endpoint, {endpoint}"
        raise BadLine("invalid_url", f"url={line.url!r:.100} is not allowed; it must be {known}", "url")
    body = bytes(line.body)
    if not body.startswith(b"{"):
        raise BadLine("invalid_line", f"body={body[:40].decode('utf-8', 'replace')!r} must be an object", "body")
    if len(body) > limits.max_body_bytes:
        raise BadLine("line_too_long", _too_long(limits), "body")
    return Line(number, line.custom_id, line.url, body)


def _too_long(limits: Limits) -> str:
    return f"the body is larger than {limits.max_body_bytes} bytes; send less, or raise --max-body-bytes"


def _model(body: bytes) -> str | None:
    raw = _MODEL.decode(body).get("model")
    try:
        return None if raw is None else msgspec.json.decode(raw, type=str)[:256]
    except msgspec.DecodeError:
        return None
