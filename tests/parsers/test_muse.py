"""Muse Glimmer's messages: however they are cut, and what is enforced is what its parser reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallStart, joined
from albireo.parsers.output_parser import (
    OutputParser,
    detect_reasoning_parser,
    detect_tool_call_parser,
    needs_special_tokens,
    output_parser,
)
from albireo.parsers.reasoning import REASONING_PARSERS
from albireo.parsers.tool_form import after_reasoning, answer_form, read_tools, tool_call_form
from albireo.structured_params import StructuredOutputsParams
from parsers.cutting import cut, fed, numbered
from parsers.model_calls import ARGUMENTS, CITY, LIST, SCHEMAS, TOOLS
from parsers.test_model_formats import calls_of
from parsers.test_tool_form import allows
from parsers.test_tool_parsers import check_calls

THOUGHT = " to=self<|message|>The user asks < to=f.\n<|eom|>"
ANSWER = "<|start|>assistant to=user<|message|>It is <b>4</b>.\n"
#: As the template writes them.
CALLS = (
    ' to=get.time<|message|><atem:function_calls>\n<atem:invoke name="get.time">\n'
    f'<atem:parameter name="city">{CITY}</atem:parameter>\n<atem:parameter name="n">{LIST}</atem:parameter>\n'
    '<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|>'
    '<|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invoke name="f">\n</atem:invoke>\n'
    "</atem:function_calls>"
)
SAID = [ReasoningDelta("The user asks < to=f.\n"), TextDelta("It is <b>4</b>.\n")]


def parser(tools: str | None = "muse_glimmer", reasoning: str | None = "muse_glimmer", **options: Any) -> OutputParser:
    given = {"schemas": SCHEMAS, "new_id": numbered} | options
    return output_parser(tool_call_parser=tools, reasoning_parser=reasoning, **given)


CASES: list[tuple[str, Sequence[Event]]] = [
    (THOUGHT + ANSWER, SAID),
    (THOUGHT + ANSWER + "<|eot|>", SAID),
    (ANSWER.removeprefix("<|start|>assistant"), SAID[1:]),
    ("<|message|>So.", [TextDelta("So.")]),
    ("Without a header. to=self", [TextDelta("Without a header. to=self")]),
    ("", []),
    (" to=us", []),
    (THOUGHT + THOUGHT.strip(), [ReasoningDelta("The user asks < to=f.\n\nThe user asks < to=f.\n")]),
    (THOUGHT.removesuffix("<|eom|>") + ANSWER, SAID),
    # A call that is only talked about, to oneself or to the user.
    (f" to=self<|message|>{CALLS[20:200]}", [ReasoningDelta(CALLS[20:200])]),
    ("<|start|>user<|message|>So", [TextDelta("user<|message|>So")]),
    ("<|start|>assistantx<|message|>So", [TextDelta("assistantx<|message|>So")]),
]


@pytest.mark.parametrize(("output", "expected"), CASES, ids=range(len(CASES)))
def test_messages(output: str, expected: Sequence[Event]) -> None:
    chance = random.Random(output)
    for pieces in ([output], list(output), *(cut(output, chance) for _ in range(6))):
        assert joined(fed(parser(), pieces)) == list(expected), pieces


def test_calls_as_the_template_writes_them() -> None:
    chance = random.Random(3)
    for before, output in ((0, CALLS), (1, f"{THOUGHT}<|start|>assistant{CALLS}")):
        whole = joined(fed(parser(), [output]))
        assert calls_of(whole[before:]) == [("get.time", ARGUMENTS), ("f", {})]
        for pieces in (list(output), *(cut(output, chance) for _ in range(6))):
            assert joined(fed(parser(), pieces)) == whole
    behind = joined(fed(parser(), [f"{CALLS}<|eom|>{ANSWER}"]))
    assert behind[-1] == SAID[1]


def test_cutting_rubbish_changes_nothing() -> None:
    chance = random.Random(7)
    pieces = [CALLS[i : i + 9] for i in range(0, len(CALLS), 9)]
    pieces += ["<|start|>", "<|message|>", "<|eom|>", "assistant", " to=", "self", "user", "\n", "<", "é"]
    for _ in range(200):
        output = CALLS[: chance.choice((0, 30, 60, 120))] + "".join(chance.choices(pieces, k=8))
        events = joined(fed(parser(), [output]))
        assert joined(fed(parser(), list(output))) == joined(fed(parser(), cut(output, chance))) == events, output
        check_calls([event for event in events if not isinstance(event, (TextDelta, ReasoningDelta))])


def test_what_is_not_asked_for_is_the_answer() -> None:
    events = fed(parser(tools=None), [f"{THOUGHT}<|start|>assistant{CALLS}"])
    assert not any(isinstance(event, ToolCallStart) for event in events)
    assert joined(events)[0] == SAID[0]
    silent = joined(fed(parser(reasoning=None), [THOUGHT + ANSWER]))
    assert silent == [TextDelta("The user asks < to=f.\n\nIt is <b>4</b>.\n")]
    other = fed(parser(tool_names=["g"]), [CALLS])
    assert not any(isinstance(event, ToolCallStart) for event in other)


def test_what_is_enforced_is_what_its_parser_reads() -> None:
    tags = REASONING_PARSERS["muse_glimmer"]
    tools = read_tools(TOOLS)
    form = tool_call_form(tools, "required", "muse_glimmer")
    thoughtful = tool_call_form(tools, "required", "muse_glimmer", reasoning=tags)
    assert allows(form, "bundled", CALLS)
    for change in (("days", "hours"), (">3<", ">x<"), ('"f"', '"g"')):
        assert not allows(form, "bundled", CALLS.replace(*change))
    assert allows(thoughtful, "bundled", f"{THOUGHT}<|start|>assistant{CALLS}")
    asked = StructuredOutputsParams(json={"type": "integer"})
    answer = after_reasoning(answer_form(asked, tags), tags, False)
    assert allows(answer, "bundled", f"{THOUGHT}<|start|>assistant to=user<|message|>7")
    assert (
        tool_call_form(read_tools([{**tool["function"], "strict": True} for tool in TOOLS]), "auto", "muse_glimmer")
        is None
    )


def test_it_is_found_in_its_template() -> None:
    template = "{{ '<atem:function_calls>\n<atem:invoke name=\"' }}"
    assert (detect_reasoning_parser(template), detect_tool_call_parser(template)) == ("muse_glimmer", "muse_glimmer")
    assert needs_special_tokens("muse_glimmer", None) and needs_special_tokens(None, "muse_glimmer")
