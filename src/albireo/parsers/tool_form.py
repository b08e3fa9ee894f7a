"""Tools and tool_choice -> the form an output must have, in the model's own format: what its parser reads back.

Called by front doors. The form is a structural tag, so it is data, compiled like any other. Does not know protocols;
tools come as OpenAI has them, {"type": "function", "function": {"name", "parameters"}} or the same without "function".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.parsers.reasoning import ReasoningTags
from albireo.parsers.tool_formats import TOOL_CALL_PARSERS
from albireo.parsers.written_calls import (
    ANY_OBJECT,
    ANY_TEXT,
    Node,
    Tool,
    WrittenCalls,
    either,
    regex_node,
    schema_node,
    sequence,
    tag_node,
    text_node,
)
from albireo.structured_params import StructuredOutputsParams

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")


def read_tools(tools: Sequence[Mapping[str, Any]]) -> list[Tool]:
    """Raises: InvalidParams naming the place in the list."""
    found: list[Tool] = []
    for idx, tool in enumerate(tools):
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or tool.get("type", "function") != "function":
            raise InvalidParams(f'tools[{idx}] must be {{"type": "function", "function": {{…}}}}, got {tool!r:.60}')
        name, parameters = inner.get("name"), inner.get("parameters")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidParams(f"tools[{idx}]: name={name!r:.80} must be 1 to 64 letters, digits, or one of _.:/-")
        if any(name == each.name for each in found):
            raise InvalidParams(f"tools[{idx}]: there is another tool with the name {name!r}")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise InvalidParams(f"tools[{idx}]: parameters must be a JSON schema, got {parameters!r:.60}")
        found.append(Tool(name, parameters or ANY_OBJECT, inner.get("strict") is True))
    return found


def allowed_tools(
    tools: Sequence[Tool], tool_choice: str | Mapping[str, Any]
) -> tuple[list[Tool], str | Mapping[str, Any]]:
    """Tools that may be called, and the choice among them: fewer than all where the choice is of type allowed_tools.

    Args: tool_choice: as of tool_call_form(), or {"type": "allowed_tools", "allowed_tools": {"mode", "tools"}}, or the
        same without "allowed_tools" inside, as OpenAI has it for chats and for responses.
    Raises: InvalidParams for another mode, and for a tool that there is not.
    """
    if not isinstance(tool_choice, Mapping) or tool_choice.get("type") != "allowed_tools":
        return list(tools), tool_choice
    inner = tool_choice.get("allowed_tools", tool_choice)
    mode, given = (inner.get("mode"), inner.get("tools")) if isinstance(inner, Mapping) else (None, None)
    if mode not in ("auto", "required"):
        raise InvalidParams(f"tool_choice.allowed_tools has mode={mode!r:.60}; it must be auto or required")
    if not isinstance(given, list) or not given:
        raise InvalidParams("tool_choice.allowed_tools needs tools: those of the request's that may be called")
    chosen = [_named(tools, each).name for each in given]
    return [tool for tool in tools if tool.name in chosen], str(mode)


def tool_call_form(
    tools: Sequence[Tool],
    tool_choice: str | Mapping[str, Any],
    tool_call_parser: str,
    *,
    template: str = "",
    is_parallel: bool = True,
    is_restricted: bool = False,
    reasoning: ReasoningTags | None = None,
    is_thinking: bool = False,
) -> StructuredOutputsParams | None:
    """The form, or None where nothing has to be enforced.

    Args:
        tool_choice: "none", "auto", "required", or {"type": "function", "function": {"name": …}}.
        tool_call_parser: a name of TOOL_CALL_PARSERS.
        template: the chat template, which tells the two formats of Mistral apart.
        is_parallel: several calls may be made.
        is_restricted: the model sees more tools than these, and may call none of the others.
        reasoning: the model may think first, between these tags. is_thinking: the prompt opened them already.
    Raises: InvalidParams for a choice that is not among the tools; UnsupportedFeature for another choice.
    """
    if tool_choice == "none":
        return None
    if tool_call_parser not in TOOL_CALL_PARSERS:
        raise UnsupportedFeature(f"tool calls cannot be enforced in the format {tool_call_parser!r}")
    written = TOOL_CALL_PARSERS[tool_call_parser].written(template)
    if tool_choice == "auto":
        free = _auto(tools, written, is_parallel, is_restricted)
        if free is None:
            return None
        if reasoning is not None and reasoning.answer:
            free = either([sequence([text_node(reasoning.answer), free]), free])
        # Thoughts are no free text: their marks are special tokens of many models, which no text can be.
        return after_reasoning(free, reasoning, is_thinking)
    chosen = list(tools) if tool_choice == "required" else [_named(tools, tool_choice)]
    if not chosen:
        raise InvalidParams("tool_choice asks for a tool call, and there are no tools; give some")
    form = written.calls(chosen, is_one=not is_parallel or tool_choice != "required")
    return after_reasoning(form, reasoning, is_thinking)


def after_reasoning(
    form: Node | StructuredOutputsParams, tags: ReasoningTags | None, is_thinking: bool
) -> StructuredOutputsParams:
    """A form with reasoning in front of it: it must come to its end when the prompt opened it, else it may be left out.

    Args: form: a node of a structural tag, or any form but a grammar.
    Raises: UnsupportedFeature for a grammar.
    """
    if tags is None:
        return form if isinstance(form, StructuredOutputsParams) else _structural(form)
    node = as_node(form) if isinstance(form, StructuredOutputsParams) else form
    begin = "" if is_thinking or tags.is_implied else tags.begin
    behind = text_node(tags.then) if tags.then else regex_node(r"\n{0,2}")
    thoughtful = sequence([tag_node(begin, ANY_TEXT, tags.end), behind, node])
    body = thoughtful if not begin else either([thoughtful, node])
    options = _options(form) if isinstance(form, StructuredOutputsParams) else {}
    return StructuredOutputsParams(structural_tag={"format": body}, **options)


def answer_form(form: StructuredOutputsParams, tags: ReasoningTags | None) -> StructuredOutputsParams:
    """The form of a whole answer, with what the format writes before one. Raises: UnsupportedFeature for a grammar."""
    if tags is None or not tags.answer:
        return form
    body = sequence([text_node(tags.answer), as_node(form)])
    return StructuredOutputsParams(structural_tag={"format": body}, **_options(form))


def _options(form: StructuredOutputsParams) -> dict[str, Any]:
    names = ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")
    return {name: getattr(form, name) for name in names}


def as_node(form: StructuredOutputsParams) -> Node:
    """A form as a node of a structural tag. Raises: UnsupportedFeature for a grammar."""
    if form.kind in ("json", "json_object"):
        return schema_node(form.schema if form.kind == "json" else ANY_OBJECT)
    if form.kind == "regex":
        return regex_node(form.regex or "")
    if form.kind == "choice":
        return either(text_node(each) for each in form.choice or ())
    if form.kind == "structural_tag" and "format" in form.schema:
        node: Node = form.schema["format"]
        return node
    raise UnsupportedFeature(
        f"structured_outputs.{form.kind} does not go with a model that thinks first; turn reasoning off, or use a regex"
    )


def _named(tools: Sequence[Tool], choice: Any) -> Tool:
    if not isinstance(choice, Mapping) or choice.get("type", "function") != "function":
        raise UnsupportedFeature(
            f"tool_choice={choice!r:.80} is not none, auto, required, a function or allowed_tools of functions"
        )
    inner = choice.get("function", choice)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str):
        raise InvalidParams(
            f"tool_choice={choice!r:.80} names no function; write "
            '{"type": "function", "function": {"name": …}}, or none, auto, required'
        )
    for tool in tools:
        if tool.name == name:
            return tool
    names = ", ".join(each.name for each in tools) or "there are none"
    raise InvalidParams(f"tool_choice names the function {name!r:.80}, which is not among the tools ({names})")


def _auto(tools: Sequence[Tool], written: WrittenCalls, is_parallel: bool, is_restricted: bool) -> Node | None:
    """Free text; but a call, once begun, is of one of these tools and follows its schema, where one of them is strict
    or they are not all, and the format marks calls."""
    if not (is_restricted or any(tool.is_strict for tool in tools)):
        return None
    loose = [Tool(tool.name, tool.parameters if tool.is_strict else ANY_OBJECT) for tool in tools]
    return written.amid_text(loose, is_one=not is_parallel)


def _structural(node: Node) -> StructuredOutputsParams:
    return StructuredOutputsParams(structural_tag={"format": node})
