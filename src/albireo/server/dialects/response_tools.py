"""Tools of OpenAI's responses -> those of a chat: functions, on their own or in namespaces.

Used by responses.py and the answer's writer. A chat's functions have no namespaces, so the model is shown one name for
both, and what it calls is told with the two again. Does not know the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from albireo.server.dialects.custom_tools import as_function, is_custom
from albireo.server.errors import HttpError
from albireo.server.protocol.responses import ResponseRequest

Tool = dict[str, Any]

#: Tools that OpenAI's servers run themselves; some have a date behind their name.
_HOSTED = ("web_search", "file_search", "code_interpreter", "image_generation", "mcp")
#: What may be said of a function beside its shape, and changes nothing here.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "defer_loading": (False,),
    "allowed_callers": (["direct"], []),
    "async": (False,),
}


def tools_of(request: ResponseRequest) -> list[Tool] | None:
    """As chats have them: a function has an object of its own there, none is in a namespace. Raises: HttpError 400."""
    found = []
    for place, namespace, tool in _functions(request.tools or ()):
        for name, allowed in _NEUTRAL.items():
            if tool.get(name) is not None and tool[name] not in allowed:
                raise HttpError(400, f"{place}.{name} is not supported; leave it out", param="tools")
        function = {name: value for name, value in tool.items() if name != "type" and name not in _NEUTRAL}
        if namespace is not None:
            function["name"] = joined(namespace["name"], tool["name"])
            if tool is namespace["tools"][0]:  # what is said of all is said once
                texts = (namespace.get("description"), tool.get("description"))
                function["description"] = "\n\n".join(text for text in texts if text)
        found.append({"type": "function", "function": function})
    return found or None


def choice_of(request: ResponseRequest) -> str | dict[str, Any] | None:
    """tool_choice, with the names that the model is shown."""
    choice = request.tool_choice
    if not isinstance(choice, dict):
        return choice
    if isinstance(choice.get("tools"), list):
        tools = [_shown(request, tool) if isinstance(tool, dict) else tool for tool in choice["tools"]]
        return {**choice, "tools": tools}
    return _shown(request, choice)


def names_of(request: ResponseRequest) -> dict[str, tuple[str, str]]:
    """Name that the model is shown -> namespace and name, of the functions that are in one."""
    return {
        joined(namespace["name"], tool["name"]): (namespace["name"], tool["name"])
        for _, namespace, tool in _functions(request.tools or ())
        if namespace is not None
    }


def custom_names(request: ResponseRequest) -> frozenset[str]:
    """Those of the tools whose input is a text."""
    return frozenset(str(tool.get("name")) for tool in request.tools or () if is_custom(tool))


def joined(namespace: str, name: str) -> str:
    """What a function of a namespace is called in front of the model."""
    return f"{namespace}{'' if namespace.endswith('_') else '__'}{name}"


def without_hosted(tools: list[Tool]) -> list[Tool]:
    """Those that this server can have called."""
    return [tool for tool in tools if not _is_hosted(tool)]


def _functions(tools: list[Tool] | tuple[()]) -> Iterator[tuple[str, Tool | None, Tool]]:
    """Each function, with its place and its namespace. Raises: HttpError 400."""
    for index, tool in enumerate(tools):
        place, kind = f"tools[{index}]", tool.get("type")
        if is_custom(tool):
            yield place, None, as_function(place, tool)
            continue
        if kind != "namespace":
            _check_function(place, tool)
            yield place, None, tool
            continue
        inner = tool.get("tools")
        if not isinstance(tool.get("name"), str) or not isinstance(inner, list) or not inner:
            raise HttpError(400, f"{place} is a namespace, which needs a name, and tools in it", param="tools")
        for number, each in enumerate(inner):
            _check_function(f"{place}.tools[{number}]", each)
            yield f"{place}.tools[{number}]", tool, each


def _check_function(place: str, tool: Any) -> None:
    kind = tool.get("type") if isinstance(tool, dict) else type(tool).__name__
    if kind == "function" and isinstance(tool, dict):
        if not isinstance(tool.get("name"), str):
            raise HttpError(400, f"{place} needs a name, a text; it is {tool.get('name')!r:.60}", param="tools")
        return
    if isinstance(tool, dict) and _is_hosted(tool):
        advice = "a server would have to run it, and this one runs none; leave it out, or start the server with "
        raise HttpError(400, f"{place} is of type {kind!r:.60}: {advice}--leave-out-hosted-tools", param="tools")
    raise HttpError(
        400,
        f"{place} is of type {kind!r:.60}; only functions, custom tools and namespaces of functions are supported",
        param="tools",
    )


def _is_hosted(tool: Tool) -> bool:
    kind = tool.get("type")
    return isinstance(kind, str) and kind.startswith(_HOSTED)


def _shown(request: ResponseRequest, choice: dict[str, Any]) -> dict[str, Any]:
    """A choice of a function that is in a namespace, by the name that the model is shown; any other as it is."""
    if is_custom(choice):
        return {"type": "function", "name": choice.get("name")}
    if choice.get("type") != "function":
        return choice
    namespace, name = choice.get("namespace"), choice.get("name")
    if namespace is None and any(tool.get("name") == name for tool in request.tools or ()):
        return choice
    fitting = [shown for shown, (its, own) in names_of(request).items() if own == name and namespace in (None, its)]
    if len(fitting) != 1:
        return choice
    return {"type": "function", "name": fitting[0]}
