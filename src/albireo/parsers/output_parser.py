"""The text of one output -> reasoning, answer and tool calls; chosen by name or found out from the chat template.

Called by front doors, one parser an output. Does not know protocols, tokens or requests. A call amid what is thought
ends the thoughts: models forget to close them. Where marks are plain text, they have to begin a line there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from albireo.errors import ConfigError
from albireo.parsers.call_reader import NewId
from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallStart
from albireo.parsers.formats.harmony import HarmonyParser
from albireo.parsers.formats.muse import MuseParser
from albireo.parsers.reasoning import REASONING_PARSERS, ReasoningParser, ReasoningTags, is_open
from albireo.parsers.tool_formats import TOOL_CALL_PARSERS as TOOL_CALL_PARSERS
from albireo.parsers.tool_formats import detect_tool_call_parser as detect_tool_call_parser
from albireo.parsers.tool_parser import MarkedText, ToolParser, random_id

#: Of formats in which reasoning, answers and calls are messages of one kind.
_HARMONY, _MUSE = ("openai", "openai_gptoss"), ("muse_glimmer",)


class OutputParser:
    """Text in, events out; what is left out (reasoning=None, tools=None) is text.

    Invariant: the events, joined (events.joined), do not depend on how the text was cut.

    Args:
        reasoning: a HarmonyParser, or MuseParser, makes calls as well.
        amid: reads calls amid thoughts; None: they are thoughts.
    """

    def __init__(
        self,
        *,
        reasoning: ReasoningParser | HarmonyParser | MuseParser | None = None,
        tools: ToolParser | None = None,
        amid: ToolParser | None = None,
    ) -> None:
        self._reasoning = reasoning
        self._tools = tools
        self._amid = amid
        self._has_called_amid = False

    def push(self, text: str) -> list[Event]:
        """Take the next piece of text. Returns: what it brings, often nothing."""
        events: list[Event] = [TextDelta(text)] if self._reasoning is None else self._reasoning.push(text)
        return self._with_calls(events)

    def finish(self) -> list[Event]:
        """No more text comes. Returns: what was held back."""
        events = self._with_calls([] if self._reasoning is None else self._reasoning.finish())
        events += self._behind_thoughts()
        return events if self._tools is None else [*events, *self._tools.finish()]

    def parse(self, text: str) -> list[Event]:
        """A whole output at once."""
        return [*self.push(text), *self.finish()]

    def _with_calls(self, events: list[Event]) -> list[Event]:
        found: list[Event] = []
        for event in events:
            if isinstance(event, ReasoningDelta) and self._amid is not None:
                found += self._thought(self._amid, self._amid.push(event.text))
            elif isinstance(event, (TextDelta, ReasoningDelta)) and self._tools is not None:
                is_answer = isinstance(event, TextDelta) or self._has_called_amid
                found += [*self._behind_thoughts(), *self._tools.push(event.text)] if is_answer else [event]
            else:
                found.append(event)
        return found

    def _thought(self, amid: ToolParser, events: list[Event]) -> list[Event]:
        """What was read amid thoughts: text of theirs, until a call ends them."""
        first = next((i for i, event in enumerate(events) if isinstance(event, ToolCallStart)), len(events))
        if first < len(events):
            self._tools, self._amid, self._has_called_amid = amid, None, True
            amid.is_expected()
        thoughts = [ReasoningDelta(event.text) for event in events[:first] if isinstance(event, TextDelta)]
        return [*thoughts, *events[first:]]

    def _behind_thoughts(self) -> list[Event]:
        """The thoughts are over: what was held back of them."""
        amid, self._amid = self._amid, None
        return [] if amid is None else self._thought(amid, amid.finish())


def output_parser(
    *,
    tool_call_parser: str | None,
    reasoning_parser: str | None,
    prompt: str = "",
    tool_names: Collection[str] | None = None,
    new_id: NewId = random_id,
    schemas: Mapping[str, Mapping[str, Any]] | None = None,
    left_out: tuple[str, ...] = (),
) -> OutputParser:
    """The parser of one output.

    Args:
        tool_call_parser: a name of TOOL_CALL_PARSERS; None: tool calls are text.
        reasoning_parser: a name of REASONING_PARSERS; None: reasoning is text.
        prompt: the rendered prompt: some templates open the reasoning themselves.
        tool_names, new_id, schemas: see ToolParser.
        left_out: marks that are none of an answer's text, where tool calls are text.
    Raises: ConfigError for a name that is none.
    """
    tags = None if reasoning_parser is None else reasoning_tags(reasoning_parser)
    if tool_call_parser is not None and tool_call_parser not in TOOL_CALL_PARSERS:
        raise _unknown("tool_call_parser", tool_call_parser, TOOL_CALL_PARSERS)
    if tool_call_parser in _HARMONY or (tool_call_parser is None and reasoning_parser in _HARMONY):
        has_tools, has_reasoning = tool_call_parser is not None, reasoning_parser is not None
        whole = HarmonyParser(tool_names, new_id, has_tools=has_tools, has_reasoning=has_reasoning)
        return OutputParser(reasoning=whole)
    if tool_call_parser in _MUSE or (tool_call_parser is None and reasoning_parser in _MUSE):
        has_tools, has_reasoning = tool_call_parser is not None, reasoning_parser is not None
        muse = MuseParser(tool_names, new_id, schemas, has_tools=has_tools, has_reasoning=has_reasoning)
        return OutputParser(reasoning=muse)
    reasoning = None if tags is None else ReasoningParser(tags, starts_inside=is_open(prompt, tags))
    if tool_call_parser is None:
        return OutputParser(reasoning=reasoning, tools=MarkedText(left_out) if left_out else None)
    tools = TOOL_CALL_PARSERS[tool_call_parser]
    assert issubclass(tools, ToolParser)
    amid = tools(tool_names, new_id, schemas, is_amid=True) if reasoning is not None and tools.needs_mark else None
    return OutputParser(reasoning=reasoning, tools=tools(tool_names, new_id, schemas), amid=amid)


def reasoning_tags(name: str) -> ReasoningTags:
    """The tags of a reasoning parser. Raises: ConfigError."""
    if name not in REASONING_PARSERS:
        raise _unknown("reasoning_parser", name, REASONING_PARSERS)
    return REASONING_PARSERS[name]


def detect_reasoning_parser(template: str) -> str | None:
    """The name of the reasoning parser for a chat template; None when it knows no reasoning."""
    marks = (
        ("[THINK]", "mistral"),
        ("<|channel|>", "openai_gptoss"),
        ("<|channel>thought", "gemma4"),
        ("<|START_THINKING|>", "cohere_command3"),
        ("<seed:think>", "seed_oss"),
        ("<|inner_prefix|>", "apertus"),
        ("<|open|>", "kimi_k3"),
        ("<atem:function_calls>", "muse_glimmer"),
        ("</mm:think>", "minimax_m3"),
        (":opensource", "hy_v3"),
        ("</think>", "think"),
    )
    return next((name for mark, name in marks if mark in template), None)


def needs_special_tokens(tool_call_parser: str | None, reasoning_parser: str | None) -> bool:
    """Whether tags of these formats are special tokens, so that a text without special tokens has lost them:
    then the request needs skip_special_tokens=False."""
    is_in_calls = tool_call_parser is not None and TOOL_CALL_PARSERS[tool_call_parser].keeps_special_tokens
    return is_in_calls or (reasoning_parser is not None and reasoning_tags(reasoning_parser).keeps_special_tokens)


def _unknown(field: str, name: str, known: Collection[str]) -> ConfigError:
    return ConfigError(f"{field}={name!r} is unknown; choose one of {', '.join(known)}")
