"""Messages of Anthropic's protocol -> messages of a chat: texts, images, calls of tools and their results,
thoughts.

Used by anthropic.py beside it. Does not know what else a request asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from albireo.server.dialects.texts import call, image, merged
from albireo.server.errors import HttpError
from albireo.server.protocol.anthropic import CountTokensRequest

Block = dict[str, Any]


def messages_of(request: CountTokensRequest) -> list[dict[str, Any]]:
    """The conversation. Raises: HttpError 400."""
    found = []
    if request.system:
        found.append({"role": "system", "content": _text(request.system, "system")})
    for index, message in enumerate(request.messages):
        where = f"messages[{index}]"
        if message.role not in _BLOCKS:
            roles = "user, assistant or system"
            raise HttpError(400, f"{where} has role {message.role!r:.40}; it is {roles}", param="messages")
        if isinstance(message.content, str):
            found.append({"role": message.role, "content": message.content})
            continue
        readers = _BLOCKS[message.role]
        for place, block in enumerate(message.content):
            found.append(_read(block, f"{where}.content[{place}]", message.role, readers))
        if not message.content:
            found.append({"role": message.role, "content": ""})
    return merged(found)


def is_open(messages: list[dict[str, Any]]) -> bool:
    """Whether the last message is gone on with. Raises: HttpError 400 when it ends with a call."""
    last = messages[-1]
    if last["role"] != "assistant":
        return False
    if last.get("tool_calls"):
        raise HttpError(400, "messages end with a tool_use; give its tool_result", param="messages")
    return True


def _read(block: Block, where: str, role: str, readers: dict[str, Callable[[Block, str], Any]]) -> dict[str, Any]:
    kind = block.get("type")
    reader = readers.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise _wrong(where, f"is a block of type {kind!r:.40}; of {role} this model takes {', '.join(readers)}")
    found: dict[str, Any] = {"role": role, **reader(block, where)}
    return found


def _said(block: Block, where: str) -> dict[str, Any]:
    return {"content": _string(block, "text", where)}


def _image(block: Block, where: str) -> dict[str, Any]:
    source = block.get("source")
    if not isinstance(source, dict) or source.get("type") not in ("base64", "url"):
        raise _wrong(where, f"is an image, which needs source, of type base64 or url; it is {source!r:.40}")
    if source["type"] == "url":
        return {"content": [image(_string(source, "url", f"{where}.source"))]}
    media, data = (_string(source, name, f"{where}.source") for name in ("media_type", "data"))
    return {"content": [image(f"data:{media};base64,{data}")]}


def _document(block: Block, where: str) -> dict[str, Any]:
    """One of plain text, which is what it says, behind its title and what is said of it."""
    source = block.get("source")
    if not isinstance(source, dict) or source.get("type") != "text":
        kind = source.get("type") if isinstance(source, dict) else source
        raise _wrong(where, f"is a document whose source is of type {kind!r:.40}; only those of type text are read")
    if isinstance(block.get("citations"), dict) and block["citations"].get("enabled"):
        raise _wrong(where, "is a document to be cited, which is not supported; leave citations out")
    said = [_string(block, name, where) for name in ("title", "context") if block.get(name) is not None]
    return {"content": "\n".join([*said, _string(source, "data", f"{where}.source")])}


def _thought(block: Block, where: str) -> dict[str, Any]:
    return {"reasoning_content": _string(block, "thinking", where)}


def _redacted(block: Block, where: str) -> dict[str, Any]:
    """Thoughts that another server encrypted: nobody else can read them, and the conversation goes on without."""
    _string(block, "data", where)
    return {}


def _call(block: Block, where: str) -> dict[str, Any]:
    if not isinstance(block.get("input"), dict):
        raise _wrong(where, f"needs input, an object; it is {block.get('input')!r:.40}")
    return {"tool_calls": [call(_string(block, "id", where), _string(block, "name", where), block["input"])]}


def _result(block: Block, where: str) -> dict[str, Any]:
    """Templates have no place for is_error, so the text says it."""
    content: Any = _result_content(block.get("content") or "", f"{where}.content")
    if block.get("is_error") is True:
        is_text = isinstance(content, str)
        content = f"Error: {content}" if is_text else [{"type": "text", "text": "Error: "}, *content]
    return {"role": "tool", "tool_call_id": _string(block, "tool_use_id", where), "content": content}


def _result_content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """The texts of a result as one, or its parts where some are images."""
    blocks = content if isinstance(content, list) else []
    if not any(isinstance(block, dict) and block.get("type") == "image" for block in blocks):
        return _text(content, where)
    parts: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        place, kind = f"{where}[{index}]", block.get("type") if isinstance(block, dict) else type(block).__name__
        if kind == "image":
            parts += _image(block, place)["content"]
        elif kind == "text":
            parts.append({"type": "text", "text": _string(block, "text", place)})
        else:
            raise _wrong(place, f"is a block of type {kind!r:.40}; here it must be text or image")
    return parts


#: Role -> type of a block -> what it is in a chat.
_BLOCKS: dict[str, dict[str, Callable[[Block, str], dict[str, Any]]]] = {
    "user": {"text": _said, "image": _image, "document": _document, "tool_result": _result},
    "system": {"text": _said},
    "assistant": {"text": _said, "thinking": _thought, "redacted_thinking": _redacted, "tool_use": _call},
}


def _text(content: Any, where: str) -> str:
    """A text, or blocks of text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, f"must be a text or a list of blocks, got {content!r:.40}")
    texts = []
    for index, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else type(block).__name__
        if kind != "text":
            raise _wrong(f"{where}[{index}]", f"is a block of type {kind!r:.40}; here it must be text")
        texts.append(_string(block, "text", f"{where}[{index}]"))
    return "\n".join(texts)


def _string(block: Block, name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise _wrong(where, f"needs {name}, a text; it is {value!r:.40}")
    return value


def _wrong(where: str, what: str) -> HttpError:
    return HttpError(400, f"{where} {what}", param=where.partition("[")[0])
