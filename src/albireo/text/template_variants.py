"""The same conversation in the forms that chat templates understand, for one that fails on what clients send.

Used by chat_template.py, when a rendering failed or shows Python's idea of a message. Templates were tried on what
their authors thought of: a content that is a text, in each message; tools with a description and parameters. Clients
send what OpenAI allows: a null beside tool calls, lists of texts in any role, functions without arguments.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]
Variables = dict[str, Any]

_NO_PARAMETERS = {"type": "object", "properties": {}}


def variants(
    variables: Variables, text: str | None, *, knows_calls: bool, asks_for_none: bool
) -> Iterator[tuple[Variables, list[str]]]:
    """Other forms of what a template sees, the nearest first, with the texts that a rendering must not lose.

    Args:
        text: what it made of the first form; None: it failed.
        knows_calls: it tells tool calls, or what comes of them; any other would lose a message that is nothing else.
        asks_for_none: it asks whether a content is null.
    """
    messages, tools = variables["messages"], variables["tools"]
    lacks_content = knows_calls and any(_only_calls(message) for message in messages)
    contents: list[tuple[Any, ...]] = [()]
    if lacks_content:
        contents += [(None,), ("",)] if asks_for_none else [("",)]
    is_bare = any(_filled(tool) != tool for tool in tools or ())
    choices = itertools.product((False, True) if is_bare else (False,), contents, _joinable(messages, text))
    for fills, content, joined in itertools.islice(choices, 1, None):
        changed = [_changed(message, content, joins=idx in joined) for idx, message in enumerate(messages)]
        kept = [part["text"].strip() for idx in joined for part in messages[idx]["content"]]
        yield variables | {"messages": changed, "tools": [_filled(tool) for tool in tools] if fills else tools}, kept


def shows_python(text: str, messages: list[Message]) -> bool:
    """Whether a rendering has a list of texts as Python writes it: what takes lists from one role may print those of
    another."""
    return any(_is_shown(message, text) for message in messages)


def _joinable(messages: list[Message], text: str | None) -> list[tuple[int, ...]]:
    """Which messages' lists of texts may become one text, the fewest first: those that are shown as Python's, or if
    nothing was shown those of tools and the like, or all."""
    lists = [idx for idx, message in enumerate(messages) if _is_texts(message.get("content"))]
    if text is not None:
        choices = [tuple(idx for idx in lists if _is_shown(messages[idx], text))]
    else:
        choices = [tuple(idx for idx in lists if messages[idx].get("role") != "user"), tuple(lists)]
    return list(dict.fromkeys([(), *choices]))


def _is_shown(message: Message, text: str) -> bool:
    content = message.get("content")
    return _is_texts(content) and any(str(part) in text for part in content or ())


def _is_texts(content: Any) -> bool:
    return isinstance(content, list) and len(content) > 0 and all(_is_text(part) for part in content)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _only_calls(message: Message) -> bool:
    return bool(message.get("tool_calls")) and "content" not in message


def _changed(message: Message, content: tuple[Any, ...], *, joins: bool) -> Message:
    if content and _only_calls(message):
        return {**message, "content": content[0]}
    if joins and _is_texts(message.get("content")):
        return {**message, "content": "\n".join(part["text"] for part in message["content"])}
    return message


def _filled(tool: Any) -> Any:
    """A tool with what OpenAI lets one leave out."""
    if not isinstance(tool, dict):
        return tool
    if isinstance(tool.get("function"), dict):
        return {**tool, "function": _filled(tool["function"])}
    return {**tool, "description": tool.get("description", ""), "parameters": tool.get("parameters", _NO_PARAMETERS)}
