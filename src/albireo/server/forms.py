"""The fields by which requests ask for a form of their output -> one StructuredOutputsParams, or the 400 that names it.

Used by intake.py and the endpoints. OpenAI has response_format; structured_outputs and the older guided_* are vLLM's.
Grammars are compiled by the engine process; what it refuses is told here as the field that asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from albireo.errors import RequestError
from albireo.server.errors import HttpError, unsupported
from albireo.server.protocol.fields import GenerationFields
from albireo.structured_params import StructuredOutputsParams, backend_name

Fields = dict[str, Any]

_GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")


def asked_form(request: GenerationFields) -> StructuredOutputsParams | None:
    """The form that a request asks for, None when any text will do. Raises: HttpError 400."""
    backend = asked_backend(request)
    found = [(name, fields) for name, read in _READERS.items() if (fields := _read(request, name, read)) is not None]
    # clients of vLLM say the same by its older and its newer name, for servers of either age
    if any(fields != found[0][1] for _, fields in found[1:]):
        names = " and ".join(name for name, _ in found)
        raise HttpError(400, f"{names} ask for a form each; give one of them", param=found[1][0])
    pattern = request.guided_whitespace_pattern
    if pattern is not None and not any(name.startswith("guided_") for name, _ in found):
        raise HttpError(400, "guided_whitespace_pattern needs guided_json beside it", param="guided_whitespace_pattern")
    if not found:
        return None
    name, fields = found[0]
    if pattern is not None:
        fields = {**fields, "whitespace_pattern": pattern}
    if backend is not None:
        if fields.get("backend") not in (None, backend):
            raise _wrong("guided_decoding_backend", f"and {name}.backend={fields['backend']!r:.60} differ", backend)
        fields = {**fields, "backend": backend}
    try:
        return as_text(StructuredOutputsParams.of(fields))
    except RequestError as error:
        raise HttpError(400, _renamed(str(error), name), param=name, code="invalid_value") from None


def asked_backend(request: GenerationFields) -> str | None:
    """The backend that a request names for its forms; None: the engine's default. Raises: HttpError 400."""
    value = request.guided_decoding_backend
    if value in (None, "", "auto"):
        return None  # vLLM's clients say auto where they ask for nothing
    try:
        return backend_name("guided_decoding_backend", value)
    except RequestError as error:
        raise HttpError(400, str(error), param="guided_decoding_backend", code="invalid_value") from None


def as_text(form: StructuredOutputsParams) -> StructuredOutputsParams:
    """The same form with its schema as text: numbers of any size travel between processes so."""
    if form.kind not in ("json", "structural_tag"):
        return form
    changed: Fields = {form.kind: json.dumps(form.schema)}
    return replace(form, **changed)


@contextmanager
def blaming(request: GenerationFields, told_as: str = "response_format") -> Iterator[None]:
    """What is said about the form inside is said of the field that asked for it.

    Args: told_as: what response_format is called in the protocol of the caller.
    """
    try:
        yield
    except HttpError as error:
        if error.status == 400 and error.message.startswith(("structured_outputs", "structural_tag")):
            error.param = _field(request)
            error.message = _renamed(error.message, error.param)
        if error.param == "response_format":
            error.message = error.message.replace("response_format", told_as, 1)
        raise


def _field(request: GenerationFields) -> str:
    return next((name for name in _READERS if getattr(request, name) is not None), "tools")


def _renamed(message: str, name: str) -> str:
    """A message about structured_outputs.json, told of the field as the request names it."""
    if name == "structured_outputs" or not message.startswith("structured_outputs"):
        return message
    _, dot, rest = message.partition(".")
    head, _, tail = message.partition(" ")
    return f"{name} {rest.partition(' ')[2]}" if dot and "." in head else f"{name} {tail}"


# -- one reader a field: its value -> fields of StructuredOutputsParams, None when it asks for nothing -----------------


def _read(request: GenerationFields, name: str, read: Callable[[Any], Fields | None]) -> Fields | None:
    value = getattr(request, name)
    return None if value is None else read(value)


def _response_format(value: Any) -> Fields | None:
    if not isinstance(value, Mapping):
        raise _wrong("response_format", "must be an object with a type", value)
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = value.get("schema")  # as llama.cpp and others have it
        return {"json_object": True} if schema is None else {"json": schema}
    if kind == "structural_tag":
        return {"structural_tag": {key: item for key, item in value.items() if key != "type"}}
    if kind != "json_schema":
        raise unsupported("response_format", value, "its type may be text, json_object, json_schema or structural_tag")
    inner = value.get("json_schema")
    if not isinstance(inner, Mapping):
        raise _wrong("response_format", "needs json_schema, an object with name and schema", value)
    schema = inner.get("schema", inner.get("json_schema"))
    return {"json_object": True} if schema is None else {"json": schema}


def _structured_outputs(value: Any) -> Fields | None:
    if not isinstance(value, Mapping):
        raise _wrong("structured_outputs", "must be an object", value)
    # vLLM's clients send flags along that are off.
    return {name: item for name, item in value.items() if item is not None and item is not False}


def _guided(kind: str) -> Callable[[Any], Fields | None]:
    def read(value: Any) -> Fields | None:
        return None if value in ("", []) else {kind: value}

    return read


_READERS: dict[str, Callable[[Any], Fields | None]] = {
    "response_format": _response_format,
    "structured_outputs": _structured_outputs,
    **{name: _guided(name.removeprefix("guided_")) for name in _GUIDED},
}


def _wrong(name: str, what: str, value: Any) -> HttpError:
    return HttpError(400, f"{name} {what}, got {value!r:.60}", param=name, code="invalid_value")
