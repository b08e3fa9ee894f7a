"""A request of Anthropic's messages -> a request of a chat.

Used by endpoints/messages.py. Does not know the engine.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from albireo.server.body import as_whole
from albireo.server.dialect import Dialect
from albireo.server.dialects.anthropic_messages import is_open, messages_of
from albireo.server.errors import HttpError, unsupported
from albireo.server.protocol.anthropic import COUNT_NEUTRAL, MESSAGES_NEUTRAL, CountTokensRequest, MessagesRequest
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.fields import unneutral
from albireo.server.settings import SWITCHES

#: What response_format is called here.
FORM = "output_config.format"
#: type of tool_choice -> tool_choice of a chat; "tool" names one.
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
#: What may be said of a tool beside its shape, and changes nothing here.
_TOOL_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "defer_loading": (False,),
    "allowed_callers": (["direct"],),
    "input_examples": ([],),
}


def as_chat(request: CountTokensRequest, dialect: Dialect, variables: Collection[str]) -> ChatRequest:
    """What is asked, as a chat.

    Args: dialect: of the model; variables: those that a chat template may be given.
    Raises: HttpError 400 that names a field.
    """
    asked = unneutral(request, MESSAGES_NEUTRAL if isinstance(request, MessagesRequest) else COUNT_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    messages = messages_of(request)
    choice, is_parallel = _choice(request.tool_choice)
    chat = ChatRequest(
        model=request.model,
        messages=messages,
        tools=[_tool(index, tool) for index, tool in enumerate(request.tools or ())] or None,
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        include_reasoning=tells_reasoning(request),
        response_format=_response_format(request),
        reasoning_effort=None if request.output_config is None else request.output_config.effort,
        chat_template_kwargs={
            **(_switches(request, dialect, variables) or {}),
            **(request.chat_template_kwargs or {}),
        }
        or None,
        thinking_token_budget=as_whole((request.thinking or {}).get("budget_tokens")),
        continue_final_message=is_open(messages),
    )
    if isinstance(request, MessagesRequest):
        chat.max_tokens = request.max_tokens
        chat.stop = list(request.stop_sequences or ()) or None
        chat.stream, chat.cache_salt = request.stream, request.cache_salt
        chat.temperature, chat.top_k, chat.top_p = request.temperature, request.top_k, request.top_p
    return chat


def tells_reasoning(request: CountTokensRequest) -> bool:
    """Whether what the model thinks is told: unless thinking was turned off, or is to be left out."""
    thinking = request.thinking or {}
    return thinking.get("type") != "disabled" and thinking.get("display") != "omitted"


def _response_format(request: CountTokensRequest) -> dict[str, Any] | None:
    """The form of the answer, as chats have it."""
    config = request.output_config
    form = request.output_format if config is None or config.format is None else config.format
    if form is None:
        return None
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise HttpError(
            400, f"{FORM} must be of type json_schema, with a schema; it is {form!r:.60}", param="output_config"
        )
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": form["schema"]}}


def _switches(request: CountTokensRequest, dialect: Dialect, variables: Collection[str]) -> dict[str, Any] | None:
    """Variables that turn the model's thinking on or off."""
    thinking = request.thinking
    if thinking is None:
        return None
    kind, budget = thinking.get("type"), as_whole(thinking.get("budget_tokens"))
    if kind not in ("enabled", "disabled", "adaptive"):
        raise HttpError(400, f"thinking.type={kind!r:.40} must be enabled, disabled or adaptive", param="thinking")
    limit = request.max_tokens if isinstance(request, MessagesRequest) else None
    if kind == "enabled":
        if dialect.reasoning_parser is None:
            raise unsupported("thinking", thinking, "this model does not think; leave it out")
        is_count = isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1
        if not is_count or (limit is not None and int(budget or 0) >= limit):
            raise HttpError(
                400, f"thinking.budget_tokens={budget!r:.40} must be at least 1, and below max_tokens", param="thinking"
            )
    elif budget is not None:
        raise HttpError(400, "thinking.budget_tokens goes with the type enabled", param="thinking")
    switches = [name for name in SWITCHES if name in variables]
    return dict.fromkeys(switches, kind == "enabled") if kind != "adaptive" and switches else None


def _choice(choice: dict[str, Any] | None) -> tuple[str | dict[str, Any] | None, bool | None]:
    """tool_choice and parallel_tool_calls of a chat."""
    if choice is None:
        return None, None
    kind, one = choice.get("type"), choice.get("disable_parallel_tool_use")
    if one is not None and not isinstance(one, bool):
        raise HttpError(400, "tool_choice.disable_parallel_tool_use must be true or false", param="tool_choice")
    is_parallel = None if one is None else not one
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}, is_parallel
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise HttpError(400, f"tool_choice.type={kind!r:.40} must be auto, any, tool or none", param="tool_choice")
    return _CHOICES[kind], is_parallel


def _tool(index: int, tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in (None, "custom"):
        raise HttpError(
            400,
            f"tools[{index}] is of type {kind!r:.60}; only 'custom' ones are supported",
            param="tools",
        )
    for name, allowed in _TOOL_NEUTRAL.items():
        if tool.get(name) is not None and tool[name] not in allowed:
            raise HttpError(400, f"tools[{index}].{name} is not supported; leave it out", param="tools")
    if not isinstance(tool.get("input_schema"), dict):
        raise HttpError(400, f"tools[{index}] needs input_schema, an object", param="tools")
    function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": {**function, "parameters": tool["input_schema"]}}
