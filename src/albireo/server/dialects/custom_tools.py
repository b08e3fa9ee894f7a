"""Tools of OpenAI's responses whose input is a text (`custom`) <-> functions with one argument, which models know.

Used by response_tools.py, responses.py and the answer's writer. Does not know the engine.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from albireo.server.errors import HttpError

Tool = dict[str, Any]

#: What the text is called among the arguments of the function.
_INPUT = "input"


def is_custom(tool: Any) -> bool:
    """Whether a tool's input is a text."""
    return isinstance(tool, dict) and tool.get("type") == "custom"


def as_function(place: str, tool: Tool) -> Tool:
    """The function that the model is shown. A regular expression as the text's form is kept to, as any schema is where
    calls are enforced. Raises: HttpError 400."""
    for name in tool.keys() - {"type", "name", "description", "format", "defer_loading"}:
        raise HttpError(400, f"{place}.{name:.60} is not supported; leave it out", param="tools")
    if not isinstance(tool.get("name"), str):
        raise HttpError(400, f"{place} needs a name, a text; it is {tool.get('name')!r:.60}", param="tools")
    text: dict[str, Any] = {"type": "string"}
    form = tool.get("format") or {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "grammar" and form.get("syntax") == "regex" and isinstance(form.get("definition"), str):
        text["pattern"] = f"^(?:{form['definition']})$"
    elif kind != "text":
        raise HttpError(
            400,
            f"{place}.format={form!r:.60} is not supported: of grammars a call's text is held to regular expressions "
            "alone; leave it out, and describe the form",
            param="tools",
        )
    schema = {"type": "object", "properties": {_INPUT: text}, "required": [_INPUT], "additionalProperties": False}
    found = {"type": "function", "name": tool["name"], "parameters": schema, "strict": "pattern" in text}
    return found | ({"description": tool["description"]} if tool.get("description") else {})


def arguments_of(text: str) -> str:
    """Those of the function, of the text of a call."""
    return json.dumps({_INPUT: text}, ensure_ascii=False)


def input_of(arguments: str) -> str:
    """The text of a call; of arguments that are something else, as they stand."""
    try:
        found = msgspec.json.decode(arguments, type=dict[str, Any])[_INPUT]
    except (msgspec.DecodeError, KeyError, RecursionError):
        return arguments
    return found if isinstance(found, str) else arguments
