"""A request's body -> its message: bounded bytes, then strict types; what does not fit is a 4xx that names the field.

Used by the endpoints. Does not know what the fields mean.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, TypeVar

import msgspec
from starlette.types import Message, Receive, Scope

from albireo.server.errors import HttpError, busy

T = TypeVar("T", bound=msgspec.Struct)

#: Seconds for a body to arrive.
BODY_TIMEOUT_S = 60.0
#: Bodies of the largest size that are held at one time.
MAX_TOTAL = 16
#: Key of a scope: seconds that a request waited for its model to be awake, before its endpoint had it.
WAITED = "albireo.waited_s"
#: What some editors and PowerShell write in front of UTF-8.
_BOM = b"\xef\xbb\xbf"
_PATH = re.compile(r" - at `\$\.([^`\[.]+)")
#: What other servers call it (llama.cpp, Ollama, SGLang, hosts of Qwen's models) -> what says the same here.
_CALLED = {
    "repeat_penalty": "repetition_penalty",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "n_probs": "logprobs",
    "num_ctx": "--max-model-len where the server is started",
    "think": 'chat_template_kwargs, as {"enable_thinking": false}',
    "enable_thinking": 'chat_template_kwargs, as {"enable_thinking": false}',
    "reasoning": "reasoning_effort",
    "json_schema": "response_format",
    "regex": "structured_outputs.regex",
    "grammar": "structured_outputs.grammar",
    "ebnf": "structured_outputs.grammar",
    "no_stop_trim": "include_stop_str_in_output",
    "separate_reasoning": "include_reasoning",
}
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_PLACE = re.compile(r" - at `\$((?:\.[^`\[.]+|\[\d+\])+)`$")
_STEP = re.compile(r"\.([^\[.]+)|\[(\d+)\]")
#: Fields within others that may be unknown and null: each is another look at the whole body.
_MOST_NULLS = 16
#: Half of a pair by itself, as texts have that were cut in the middle of a letter.
_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
#: Looked at to find one behind a \ that is none by itself: more would hold everybody up.
_MOST_HALVES = 256
_MISSING = re.compile(r"missing required field `([^`]*)`$")
_NOT_INT = re.compile(r"^Expected `int[^`]*`, got `float`")
#: Above it not each whole number is a float.
_MOST_WHOLE = 2.0**53


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Bodies:
    """Reads bodies. Invariant: all that are held at one time are at most as large as MAX_TOTAL of the largest size."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_held = 0

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """All of a body, which is held until the block ends, without a byte order mark.

        Raises: HttpError 413, 415, 408, 429; ClientGone.
        """
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise HttpError(
                    415,
                    f"the body has content-encoding={value.decode('latin-1')!r:.40}, which is not read here; send it "
                    "as it is",
                    headers={"accept-encoding": "identity", "connection": "close"},
                )
            if name == b"content-length" and value.isdigit() and (len(value) > 20 or int(value) > self._max_bytes):
                raise self._too_large()
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                await self._read(receive, chunks)
            yield (chunks[0] if len(chunks) == 1 else b"".join(chunks)).removeprefix(_BOM)
        except TimeoutError:
            raise HttpError(408, "the request did not arrive in time", headers={"connection": "close"}) from None
        finally:
            self._num_held -= sum(map(len, chunks))

    async def _read(self, receive: Receive, chunks: list[bytes]) -> None:
        num_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            num_bytes += len(chunk)
            if num_bytes > self._max_bytes:
                raise self._too_large()
            if self._num_held + len(chunk) > MAX_TOTAL * self._max_bytes:
                raise busy(429, "too many large requests at once; come again later", "queue_full")
            chunks.append(chunk)
            self._num_held += len(chunk)
            if not message.get("more_body", False):
                return

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            f"the request body is larger than {self._max_bytes} bytes; send less, or raise --max-body-bytes",
            code="body_too_large",
            headers={"connection": "close"},
        )


def received_s(scope: Scope) -> float:
    """When a request came that is handed on now; monotonic clock."""
    waited_s: float = scope.get(WAITED, 0.0)
    return time.monotonic() - waited_s


def replayed(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read again, and then whatever else comes."""
    is_read = False

    async def again() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def parse(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """JSON of strict types. An unknown field that is null asks for nothing, and is let through; 5.0 is a whole number.

    Raises: HttpError 400 with the field.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        if _UNKNOWN.search(str(error)) or _NOT_INT.search(str(error)):
            return _as_meant(data, decoder)
        raise _invalid(error, decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error, data) from None


def converted(fields: dict[str, Any], kind: type[T]) -> T:
    """Texts of a form as what they say: numbers, true and false. Raises: as parse()."""
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, kind) from None


def converted_object(given: dict[str, Any], kind: type[T], place: str) -> T:
    """An object within a body, as leniently as the body. Args: place: its field. Raises: HttpError 400 of that."""
    try:
        return _meant(given, kind)
    except msgspec.ValidationError as error:
        found = _invalid(error, kind)
        found.message, found.param = f"{place}: {found.message}", place
        raise found from None


def _as_meant(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Without fields that are null, and with whole numbers where 5.0 stands for 5."""
    try:
        return _meant(msgspec.json.decode(data, type=dict), decoder.type)
    except msgspec.ValidationError as error:
        raise _invalid(error, decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error, data) from None


def _meant(fields: dict[str, Any], kind: type[T]) -> T:
    """Raises: msgspec.ValidationError."""
    # numbers at once, each try reads the whole body; what is a float takes 5, too
    known = {
        name: as_whole(value) if isinstance(value, float) else value
        for name, value in fields.items()
        if value is not None
    }
    nulls = 0
    while True:  # lists, of which there are few, where one is refused
        try:
            return msgspec.convert(known, kind)
        except msgspec.ValidationError as error:
            if nulls < _MOST_NULLS and _left_out(known, str(error)):
                nulls += 1
                continue
            path = _PATH.search(str(error)) if _NOT_INT.search(str(error)) else None
            name = path.group(1) if path else ""
            if name not in known or (whole := as_whole(known[name])) is known[name]:
                raise
            known[name] = whole


def _left_out(fields: dict[str, Any], message: str) -> bool:
    """Whether what a message names is a field further in that is unknown and null; it is there no more then."""
    unknown, place = _UNKNOWN.search(message), _PLACE.search(message)
    if unknown is None or place is None:
        return False
    within: Any = fields
    for name, index in _STEP.findall(place.group(1)):
        within = within[name] if name else within[int(index)]
    if not isinstance(within, dict) or within.get(unknown.group(1), False) is not None:
        return False
    del within[unknown.group(1)]
    return True


def as_whole(value: Any) -> Any:
    """A number, or a list of them, of floats that are whole numbers; the same object where there are none."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _MOST_WHOLE else value
    if isinstance(value, list):
        found = [as_whole(each) for each in value]
        return found if any(new is not old for new, old in zip(found, value, strict=True)) else value
    return value


def _invalid(error: msgspec.ValidationError, kind: Any) -> HttpError:
    message = str(error)
    unknown = _UNKNOWN.search(message)
    if unknown:
        name = unknown.group(1)
        other = _CALLED.get(name, "")
        is_there = other.startswith("--") or re.split("[., ]", other)[0] in getattr(kind, "__struct_fields__", ())
        advice = f"use {other}" if is_there else "leave it out"
        place = _PLACE.search(message)
        within = f"{place.group(1)[1:]}." if place else ""
        found, of = f"{within}{name}"[:80], f" of {within[:-1]:.80}" if within else ""
        return HttpError(400, f"{name!r:.80}{of} is not a field that is known here; {advice}", param=found)
    missing = _MISSING.search(message)  # of the body itself: further in there is a path behind it
    if missing:
        what = f"the request is not valid: {message:.300}"
        return HttpError(400, what, param=missing.group(1)[:80], code="missing_required_parameter")
    path = _PATH.search(message)
    return HttpError(400, f"the request is not valid: {message:.300}", param=path.group(1)[:80] if path else None)


def _first_not_utf8(data: bytes) -> int | None:
    """Where, in the whole body: msgspec counts from the beginning of the text that it reads."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def _no_json(error: Exception, data: bytes) -> HttpError:
    what = f"{error!s:.200}"
    if isinstance(error, RecursionError):
        what = "it is nested too deeply"
    elif isinstance(error, UnicodeDecodeError) and (start := _first_not_utf8(data)) is not None:
        what = f"the byte {data[start]:#04x} at byte {start} is not UTF-8; send the text encoded as that"
    elif half := _half_of_pair(data):
        what = f"{half.group().decode()} at byte {half.start()} is half of a pair; a letter of a text was cut in two"
    return HttpError(400, f"the body is not valid JSON: {what}")


def _half_of_pair(data: bytes) -> re.Match[bytes] | None:
    for found in islice(_HALF_PAIR.finditer(data), _MOST_HALVES):
        before = data[max(0, found.start() - 1024) : found.start()]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return found
    return None
