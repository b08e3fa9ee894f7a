"""A request of OpenAI's responses -> a request of a chat.

Used by endpoints/responses.py. Does not know the engine, or what is stored.
"""

from __future__ import annotations

from typing import Any

from albireo.server.dialects.texts import merged
from albireo.server.errors import HttpError, unsupported
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.responses import RESPONSE_NEUTRAL, ResponseRequest

_TEXT_PARTS = ("input_text", "output_text", "text")
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
#: Names of a chat's fields -> of a response's.
_FIELDS = {"messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
_FIELDS |= {"response_format": "text", "reasoning_effort": "reasoning"}


def as_chat(request: ResponseRequest, messages: list[dict[str, Any]]) -> ChatRequest:
    """What is asked, as a chat. Args: messages: of the conversation."""
    reasoning, options = request.reasoning, request.stream_options
    return ChatRequest(
        model=request.model,
        messages=merged(_instructed(request, messages)),
        max_completion_tokens=request.max_output_tokens,
        stream=request.stream,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        seed=request.seed,
        stop=request.stop,
        ignore_eos=request.ignore_eos,
        chat_template_kwargs=request.chat_template_kwargs,
        reasoning_effort=None if reasoning is None else reasoning.effort,
        priority=request.priority,
        cache_salt=request.cache_salt,
        response_format=_response_format(request),
        stream_options=options if request.stream else None,
    )


def check(request: ResponseRequest) -> None:
    """Raises: HttpError 400 that names a field."""
    asked = unneutral(request, RESPONSE_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    if request.background and request.stream:
        raise unsupported("background", True, "stream it, or ask for it later")
    if request.background and request.store is False:
        raise HttpError(400, "background needs store: nobody could ask for the answer", param="background")
    if request.stream_options is not None and request.stream_options.include_usage:
        raise unsupported("stream_options", {"include_usage": True}, "the last event has the counts")
    if request.reasoning is not None and (request.reasoning.summary or request.reasoning.generate_summary):
        raise HttpError(400, "a summary of the reasoning is not supported; leave it out", param="reasoning")
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        raise HttpError(400, "text.verbosity is not supported; leave it out", param="text")


def renamed(error: HttpError) -> HttpError:
    """What was wrong with the chat, with the field's name here."""
    if error.param is not None:
        error.param = _FIELDS.get(error.param, error.param)
    return error


def messages_of(request: ResponseRequest) -> list[dict[str, Any]]:
    """The input as messages. Raises: HttpError 400."""
    if isinstance(request.input, str):
        return [{"role": "user", "content": request.input}]
    return [_message(f"input[{index}]", item) for index, item in enumerate(request.input)]


def _message(where: str, item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind != "message":
        raise HttpError(400, f"{where} is of type {kind!r:.60}; only messages are supported", param="input")
    role = item.get("role")
    if role not in _ROLES:
        raise HttpError(400, f"{where} has role {role!r:.60}; it is one of {', '.join(_ROLES)}", param="input")
    content = item.get("content")
    if isinstance(content, str):
        return {"role": _ROLES[role], "content": content}
    if not isinstance(content, list):
        raise HttpError(400, f"{where} needs content: a text, or a list of texts", param="input")
    return {"role": _ROLES[role], "content": "\n".join(_text(where, part) for part in content)}


def _text(where: str, part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise HttpError(400, f"{where} has content of type {kind!r:.60}; this model takes text only", param="input")
    return str(part["text"])


def _instructed(request: ResponseRequest, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not request.instructions:
        return messages
    return [{"role": "system", "content": request.instructions}, *messages]


def _response_format(request: ResponseRequest) -> dict[str, Any] | None:
    """As chats have it: there a schema has an object of its own."""
    form = None if request.text is None else request.text.format
    if form is None or form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}
