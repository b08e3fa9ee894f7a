"""A request of OpenAI's responses -> a request of a chat.

Used by endpoints/responses.py. Does not know the engine, or what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from albireo.server.dialects.custom_tools import arguments_of
from albireo.server.dialects.response_tools import choice_of, joined, tools_of
from albireo.server.dialects.text_files import text_of_file
from albireo.server.dialects.texts import call, image, merged
from albireo.server.errors import HttpError, unsupported
from albireo.server.forms import blaming
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.conversations import ConversationName
from albireo.server.protocol.fields import unneutral
from albireo.server.protocol.responses import (
    AS_IN_CHATS,
    INCLUDABLE,
    LOGPROBS,
    RESPONSE_NEUTRAL,
    OutputItem,
    ResponseAnswer,
    ResponseRequest,
)

_TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
#: Names of a chat's fields -> of a response's.
_FIELDS = {"messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
_FIELDS |= {"response_format": "text", "reasoning_effort": "reasoning"}


def as_chat(request: ResponseRequest, messages: list[dict[str, Any]]) -> ChatRequest:
    """What is asked, as a chat. Args: messages: of the conversation."""
    reasoning, options = request.reasoning, request.stream_options
    shared: dict[str, Any] = {name: getattr(request, name) for name in AS_IN_CHATS}
    return ChatRequest(
        **shared,
        messages=merged(_instructed(request, messages)),
        max_completion_tokens=request.max_output_tokens,
        reasoning_effort=None if reasoning is None else reasoning.effort,
        response_format=_response_format(request),
        tools=tools_of(request),
        tool_choice=choice_of(request),
        stream_options=options if request.stream else None,
        logprobs=includes_logprobs(request),
    )


def conversation_id(request: ResponseRequest) -> str | None:
    """Of the conversation that a request goes on with."""
    named = request.conversation
    return named.id if isinstance(named, ConversationName) else named


def includes_logprobs(request: ResponseRequest) -> bool:
    """Whether each token of the answer's texts is to be told with its log-probability."""
    return LOGPROBS in (request.include or ())


def check(request: ResponseRequest) -> None:
    """Raises: HttpError 400 that names a field."""
    asked = unneutral(request, RESPONSE_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    for name in request.include or ():
        if name not in INCLUDABLE:
            advice = f"it may hold {', '.join(INCLUDABLE)}"
            raise HttpError(400, f"include={name!r:.60} is not supported; {advice}", param="include")
    if request.conversation is not None and request.previous_response_id is not None:
        words = "conversation and previous_response_id exclude each other; give one of them"
        raise HttpError(400, words, param="conversation")
    if request.top_logprobs and not includes_logprobs(request):
        raise HttpError(400, f"top_logprobs needs include to hold {LOGPROBS!r}", param="top_logprobs")
    if request.truncation not in (None, "disabled", "auto"):
        raise HttpError(400, f"truncation={request.truncation!r:.40} must be auto or disabled", param="truncation")
    if request.background and request.store is False:
        raise HttpError(400, "background needs store: nobody could ask for the answer", param="background")
    if request.stream_options is not None and request.stream_options.include_usage:
        raise unsupported("stream_options", {"include_usage": True}, "the last event has the counts")
    reasoning = request.reasoning
    # "auto" asks for the best summary there is: none.
    summaries = [] if reasoning is None else [reasoning.summary, reasoning.generate_summary]
    if any(asked and asked != "auto" for asked in summaries):
        raise HttpError(400, "a summary of the reasoning is not supported; leave it out", param="reasoning")
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        raise HttpError(400, "text.verbosity is not supported; leave it out", param="text")


@contextmanager
def in_its_words(chat: ChatRequest) -> Iterator[None]:
    """What is said inside about fields of the chat is said of those here."""
    try:
        with blaming(chat, "text.format"):
            yield
    except HttpError as error:
        if error.param is not None:
            error.param = _FIELDS.get(error.param, error.param)
        raise


def messages_of(request: ResponseRequest, item: Callable[[str], OutputItem]) -> list[dict[str, Any]]:
    """The input as messages. Args: item: that of an earlier answer, by its id. Raises: HttpError 400, and item()'s."""
    if isinstance(request.input, str):
        return [{"role": "user", "content": request.input}]
    return messages_of_items(resolved(request.input, item))


def resolved(
    items: list[dict[str, Any]], item: Callable[[str], OutputItem], field: str = "input"
) -> list[dict[str, Any]]:
    """Items, those that are referred to as themselves. Raises: HttpError 400, and item()'s."""
    return [_referred(f"{field}[{place}]", each, item) for place, each in enumerate(items)]


def items_of(request: ResponseRequest, item: Callable[[str], OutputItem]) -> list[dict[str, Any]]:
    """The input as items, for a conversation that keeps them."""
    if isinstance(request.input, str):
        return [{"type": "message", "role": "user", "content": request.input}]
    return resolved(request.input, item)


def messages_of_items(items: list[dict[str, Any]], field: str = "input") -> list[dict[str, Any]]:
    """Args: field: that has them. Raises: HttpError 400 that names it."""
    return _messages(items, field)


def said(answer: ResponseAnswer) -> list[dict[str, Any]]:
    """An answer as messages, for a request that goes on with it."""
    return _messages(msgspec.to_builtins(answer.output))


def _referred(where: str, item: dict[str, Any], find: Callable[[str], OutputItem]) -> dict[str, Any]:
    """An item, or the one that it refers to; a reference may be an id alone."""
    if item.get("type") == "item_reference" or item.keys() == {"id"}:
        found: dict[str, Any] = msgspec.to_builtins(find(_string(where, item, "id")))
        return found
    return item


def _messages(items: list[dict[str, Any]], field: str = "input") -> list[dict[str, Any]]:
    found = []
    for index, item in enumerate(items):
        where, kind = f"{field}[{index}]", item.get("type", "message")
        read = _ITEMS.get(kind) if isinstance(kind, str) else None
        if read is None:
            raise HttpError(
                400,
                f"{where} is of type {kind!r:.60}; it may be one of {', '.join(_ITEMS)}, item_reference",
                param="input",
            )
        found.append(read(where, item))
    return found


def _message(where: str, item: dict[str, Any]) -> dict[str, Any]:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise HttpError(400, f"{where} has role {role!r:.60}; it is one of {', '.join(_ROLES)}", param="input")
    return {"role": _ROLES[role], "content": _content(where, item, "content")}


def _call(where: str, item: dict[str, Any]) -> dict[str, Any]:
    call_id, name, arguments = (_string(where, item, name) for name in ("call_id", "name", "arguments"))
    if item.get("namespace") is not None:
        name = joined(_string(where, item, "namespace"), name)
    return {"role": "assistant", "tool_calls": [call(call_id, name, arguments)]}


def _result(where: str, item: dict[str, Any]) -> dict[str, Any]:
    call_id = _string(where, item, "call_id")
    return {"role": "tool", "tool_call_id": call_id, "content": _content(where, item, "output")}


def _thought(where: str, item: dict[str, Any]) -> dict[str, Any]:
    """What was thought; where it is kept to oneself, what is told of it."""
    if item.get("encrypted_content") is not None:
        raise HttpError(400, f"{where} has encrypted_content, which cannot be read here; leave it out", param="input")
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list):
        raise HttpError(400, f"{where} needs content: a list of texts", param="input")
    return {"role": "assistant", "reasoning_content": "\n".join(_text(where, part) for part in parts)}


def _custom_call(where: str, item: dict[str, Any]) -> dict[str, Any]:
    call_id, name, text = (_string(where, item, name) for name in ("call_id", "name", "input"))
    return {"role": "assistant", "tool_calls": [call(call_id, name, arguments_of(text))]}


_ITEMS = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _result,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _result,
    "reasoning": _thought,
}


def _content(where: str, item: dict[str, Any], name: str) -> str | list[dict[str, Any]]:
    content = item.get(name)
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise HttpError(400, f"{where} needs {name}: a text, or a list of texts and images", param="input")
    if any(_is_image(part) for part in content):
        return [_image(where, part) if _is_image(part) else _text_part(where, part) for part in content]
    return "\n".join(_text(where, part) for part in content)


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "input_image"


def _image(where: str, part: dict[str, Any]) -> dict[str, Any]:
    url = part.get("image_url")
    if not isinstance(url, str):
        raise HttpError(400, f"{where} has an input_image without image_url, the URL of an image", param="input")
    return image({"url": url, "detail": part.get("detail")})


def _text_part(where: str, part: Any) -> dict[str, Any]:
    return {"type": "text", "text": _text(where, part)}


def _string(where: str, item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise HttpError(400, f"{where} needs {name}, a text; it is {value!r:.60}", param="input")
    return value


def _text(where: str, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "refusal":
        part = {"type": "text", "text": part.get("refusal")}
    if isinstance(part, dict) and part.get("type") == "input_file":
        return text_of_file(where, part)
    if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise HttpError(
            400,
            f"{where} has content of type {kind!r:.60}; here texts, files of text and images are read",
            param="input",
        )
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
