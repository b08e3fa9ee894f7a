"""What one chat makes of its model's output: the form it is held to, and the parser that reads it.

Used by intake.py, which needs the form, and by the endpoint, which needs parsers. Does not know shapes of answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from albireo.errors import RequestError
from albireo.parsers.output_parser import OutputParser, needs_special_tokens, output_parser, reasoning_tags
from albireo.parsers.reasoning import ReasoningTags, is_open
from albireo.parsers.tool_form import (
    after_reasoning,
    allowed_tools,
    answer_form,
    as_node,
    read_tools,
    tool_call_form,
)
from albireo.parsers.written_calls import Tool
from albireo.server.dialect import Dialect
from albireo.server.errors import HttpError, unsupported
from albireo.server.forms import as_text, asked_backend, asked_form
from albireo.server.protocol.chat import ChatRequest
from albireo.structured_params import StructuredOutputsParams

#: Most tools of one request, as OpenAI has it, and their characters together.
MAX_TOOLS, MAX_TOOLS_CHARS = 128, 256 * 1024

_OFF = "the server was started with --tool-call-parser none"
_NO_FORMAT = (
    "the model's chat template has no known format of tool calls; --tool-call-parser names one, and a call that has to "
    "be made (tool_choice 'required', or a function) needs none"
)


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Fields:
    tools: those that may be called; none when tool_choice is "none".
    choice: auto, required, or a function; see tool_call_form().
    is_restricted: the request has further tools, which the model sees and may not call.
    asked: the form of an answer in words.
    backend: who compiles the form; None: the engine's default.
    """

    dialect: Dialect
    tools: list[Tool]
    choice: str | Mapping[str, Any]
    is_parallel: bool
    asked: StructuredOutputsParams | None
    backend: str | None = None
    is_restricted: bool = False

    @classmethod
    def of(cls, dialect: Dialect, request: ChatRequest) -> OutputPlan:
        """Raises: HttpError 400 naming the field."""
        given = request.tools or []
        if len(given) > MAX_TOOLS:
            raise HttpError(400, f"tools holds {len(given)} tools, at most {MAX_TOOLS} are taken", param="tools")
        choice: str | Mapping[str, Any] = "auto" if given else "none"
        if request.tool_choice is not None:
            choice = request.tool_choice
        asked = asked_form(request)
        backend = asked_backend(request) if asked is None else asked.backend
        tools = _read(given)
        if not given and choice not in ("none", "auto"):
            raise HttpError(
                400, f"tool_choice={choice!r:.60} asks for a call, and there are no tools", param="tool_choice"
            )
        try:
            chosen, choice = allowed_tools(tools, choice)
        except RequestError as error:
            raise HttpError(400, str(error), param="tool_choice", code="invalid_value") from None
        if choice == "none" or (choice == "auto" and not given):
            return cls(dialect, [], "none", True, asked, backend)
        is_parallel = request.parallel_tool_calls is not False
        if choice != "auto":
            dialect = replace(dialect, tool_call_parser=dialect.enforced_parser)
        plan = cls(dialect, chosen, choice, is_parallel, asked, backend, len(chosen) < len(tools))
        if dialect.tool_call_parser is None:
            raise unsupported("tools", [tool.name for tool in plan.tools], _OFF if dialect.is_off else _NO_FORMAT)
        plan.form("")  # what is wrong with it is said before anything is rendered
        return plan

    @property
    def needs_special_tokens(self) -> bool:
        """Whether the text has to keep its special tokens, since tags are some of them."""
        return needs_special_tokens(
            self.dialect.tool_call_parser if self.tools else None, self.dialect.reasoning_parser
        )

    def form(self, prompt: str) -> StructuredOutputsParams | None:
        """What the output is held to. Args: prompt: rendered. Raises: HttpError 400; see forms.blaming()."""
        tags, is_thinking = self._reasoning(prompt)
        try:
            form = self._calls(tags, is_thinking)
            if form is None and self.asked is not None:
                form = after_reasoning(self._answer_or_calls(answer_form(self.asked, tags)), tags, is_thinking)
        except RequestError as error:
            name = "tool_choice" if str(error).startswith("tool_choice") else "tools"
            raise HttpError(400, str(error), param=name, code="invalid_value") from None
        return None if form is None else replace(as_text(form), backend=self.backend)

    def parser(self, prompt: str) -> OutputParser | None:
        """The parser of one output; None when all of it is text. Args: prompt: rendered."""
        may_think = self._reasoning(prompt)[0] is not None
        named = self.dialect.reasoning_parser
        left_out = () if named is None else reasoning_tags(named).left_out
        if not self.tools and not may_think and not left_out:
            return None
        return output_parser(
            tool_call_parser=self.dialect.tool_call_parser if self.tools else None,
            reasoning_parser=named if may_think else None,
            prompt=prompt,
            tool_names=[tool.name for tool in self.tools],
            left_out=left_out,
            schemas={tool.name: tool.parameters for tool in self.tools},
        )

    def _calls(self, tags: ReasoningTags | None, is_thinking: bool) -> StructuredOutputsParams | None:
        """The form of tool calls, where it goes before that of an answer."""
        if not self.tools or (self.choice == "auto" and self.asked is not None):
            return None
        return self._call_form(self.choice, tags, is_thinking)

    def _call_form(
        self, choice: str | Mapping[str, Any], tags: ReasoningTags | None = None, is_thinking: bool = False
    ) -> StructuredOutputsParams | None:
        assert self.dialect.tool_call_parser is not None, "of() refuses tools without"
        return tool_call_form(
            self.tools,
            choice,
            self.dialect.tool_call_parser,
            template=self.dialect.template,
            is_parallel=self.is_parallel,
            is_restricted=self.is_restricted,
            reasoning=tags,
            is_thinking=is_thinking,
        )

    def _answer_or_calls(self, asked: StructuredOutputsParams) -> StructuredOutputsParams:
        """An answer of its form, or tool calls of theirs."""
        calls = self._call_form("required") if self.tools else None
        if calls is None:
            return asked
        either = {"type": "or", "elements": [as_node(asked), calls.schema["format"]]}
        return StructuredOutputsParams(
            structural_tag={"format": either},
            disable_any_whitespace=asked.disable_any_whitespace,
            disable_additional_properties=asked.disable_additional_properties,
            whitespace_pattern=asked.whitespace_pattern,
        )

    def _reasoning(self, prompt: str) -> tuple[ReasoningTags | None, bool]:
        """Tags round what comes in front of the form, and whether the prompt opened them; none when it closed them."""
        if self.dialect.reasoning_parser is None:
            return None, False
        tags = reasoning_tags(self.dialect.reasoning_parser)
        if prompt.rstrip().endswith(tags.end):
            return None, False
        return tags, is_open(prompt, tags)


def _read(given: list[dict[str, Any]]) -> list[Tool]:
    try:
        num_chars = len(json.dumps(given))
        tools = read_tools(given)
    except RequestError as error:
        raise HttpError(400, str(error), param="tools", code="invalid_value") from None
    if num_chars > MAX_TOOLS_CHARS:
        raise HttpError(400, f"tools has {num_chars} characters, the limit is {MAX_TOOLS_CHARS}", param="tools")
    return tools
