"""The text of one output -> reasoning, answer and tool calls; chosen by name or found out from the chat template.

Called by front doors, one parser an output. Does not know protocols, tokens or requests. What is thought is not
searched for tool calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from albireo.errors import ConfigError
from albireo.parsers.call_reader import NewId
from albireo.parsers.events import Event, TextDelta
from albireo.parsers.harmony import HarmonyParser
from albireo.parsers.hermes import HermesParser
from albireo.parsers.llama3_json import Llama3JsonParser
from albireo.parsers.mistral import MistralParser
from albireo.parsers.reasoning import REASONING_PARSERS, ReasoningParser, ReasoningTags, is_open
from albireo.parsers.tool_parser import ToolParser, random_id

TOOL_CALL_PARSERS: dict[str, type[ToolParser] | type[HarmonyParser]] = {
    "hermes": HermesParser,
    "llama3_json": Llama3JsonParser,
    "mistral": MistralParser,
    "openai": HarmonyParser,
}
#: Of a format in which reasoning, answers and calls are messages of one kind.
_HARMONY = ("openai", "openai_gptoss")


class OutputParser:
    """Text in, events out; what is left out (reasoning=None, tools=None) is text.

    Invariant: the events, joined (events.joined), do not depend on how the text was cut.

    Args: reasoning: a HarmonyParser makes calls as well.
    """

    def __init__(
        self, *, reasoning: ReasoningParser | HarmonyParser | None = None, tools: ToolParser | None = None
    ) -> None:
        self._reasoning = reasoning
        self._tools = tools

    def push(self, text: str) -> list[Event]:
        """Take the next piece of text. Returns: what it brings, often nothing."""
        events: list[Event] = [TextDelta(text)] if self._reasoning is None else self._reasoning.push(text)
        return self._with_calls(events)

    def finish(self) -> list[Event]:
        """No more text comes. Returns: what was held back."""
        events = self._with_calls([] if self._reasoning is None else self._reasoning.finish())
        return events if self._tools is None else [*events, *self._tools.finish()]

    def parse(self, text: str) -> list[Event]:
        """A whole output at once."""
        return [*self.push(text), *self.finish()]

    def _with_calls(self, events: list[Event]) -> list[Event]:
        if self._tools is None:
            return events
        push: Callable[[str], list[Event]] = self._tools.push
        return [each for event in events for each in (push(event.text) if isinstance(event, TextDelta) else [event])]


def output_parser(
    *,
    tool_call_parser: str | None,
    reasoning_parser: str | None,
    prompt: str = "",
    tool_names: Collection[str] | None = None,
    new_id: NewId = random_id,
) -> OutputParser:
    """The parser of one output.

    Args:
        tool_call_parser: a name of TOOL_CALL_PARSERS; None: tool calls are text.
        reasoning_parser: a name of REASONING_PARSERS; None: reasoning is text.
        prompt: the rendered prompt: some templates open the reasoning themselves.
        tool_names, new_id: see ToolParser.
    Raises: ConfigError for a name that is none.
    """
    tags = None if reasoning_parser is None else reasoning_tags(reasoning_parser)
    if tool_call_parser is not None and tool_call_parser not in TOOL_CALL_PARSERS:
        raise _unknown("tool_call_parser", tool_call_parser, TOOL_CALL_PARSERS)
    if tool_call_parser in _HARMONY or (tool_call_parser is None and reasoning_parser in _HARMONY):
        has_tools, has_reasoning = tool_call_parser is not None, reasoning_parser is not None
        whole = HarmonyParser(tool_names, new_id, has_tools=has_tools, has_reasoning=has_reasoning)
        return OutputParser(reasoning=whole)
    reasoning = None if tags is None else ReasoningParser(tags, starts_inside=is_open(prompt, tags))
    if tool_call_parser is None:
        return OutputParser(reasoning=reasoning)
    tools = TOOL_CALL_PARSERS[tool_call_parser]
    assert issubclass(tools, ToolParser)
    return OutputParser(reasoning=reasoning, tools=tools(tool_names, new_id))


def reasoning_tags(name: str) -> ReasoningTags:
    """The tags of a reasoning parser. Raises: ConfigError."""
    if name not in REASONING_PARSERS:
        raise _unknown("reasoning_parser", name, REASONING_PARSERS)
    return REASONING_PARSERS[name]


def detect_tool_call_parser(template: str) -> str | None:
    """The name of the format in which a chat template writes tool calls; None when it is none of ours."""
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if "<|channel|>" in template:
        return "openai"
    # Others put XML between the same tags.
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        return "hermes"
    is_llama3 = "<|start_header_id|>" in template and '"parameters"' in template
    return "llama3_json" if is_llama3 or "<|python_tag|>" in template else None


def detect_reasoning_parser(template: str) -> str | None:
    """The name of the reasoning parser for a chat template; None when it knows no reasoning."""
    if "[THINK]" in template:
        return "mistral"
    if "<|channel|>" in template:
        return "openai_gptoss"
    return "think" if "</think>" in template else None


def needs_special_tokens(tool_call_parser: str | None, reasoning_parser: str | None) -> bool:
    """Whether tags of these formats are special tokens, so that a text without special tokens has lost them:
    then the request needs skip_special_tokens=False."""
    return tool_call_parser in ("mistral", "llama3_json", "openai") or reasoning_parser in ("mistral", "openai_gptoss")


def _unknown(field: str, name: str, known: Collection[str]) -> ConfigError:
    return ConfigError(f"{field}={name!r} is unknown; choose one of {', '.join(known)}")
