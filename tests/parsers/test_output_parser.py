"""Reasoning and tool calls together, chosen by name or by what the chat templates of real models say."""

from __future__ import annotations

import json
import random

import pytest

from albireo.errors import ConfigError
from albireo.parsers.events import Event, ReasoningDelta, TextDelta, joined
from albireo.parsers.output_parser import (
    OutputParser,
    detect_reasoning_parser,
    detect_tool_call_parser,
    needs_special_tokens,
    output_parser,
)
from parsers.cutting import call, cut, fed, numbered, text
from tiny_models import shared_data

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def parser(prompt: str = "") -> OutputParser:
    return output_parser(tool_call_parser="hermes", reasoning_parser="think", prompt=prompt, new_id=numbered)


def test_talk_of_calls_amid_thoughts_is_thought() -> None:
    output = f"<think>\nI could {CALL}\n</think>\n\nLet me.\n{CALL}"
    expected = [ReasoningDelta(f"I could {CALL}"), TextDelta("Let me.\n"), *call(0, "f", '{"a": 1}')]
    chance = random.Random(1)
    for pieces in ([output], list(output), *(cut(output, chance) for _ in range(10))):
        assert fed(parser(), pieces) == expected
    assert joined(parser().parse(output)) == expected


def test_a_prompt_may_have_opened_the_reasoning() -> None:
    assert fed(parser("…<think>\n"), [f"hm</think>{CALL}"]) == [ReasoningDelta("hm"), *call(0, "f", '{"a": 1}')]
    assert fed(parser(), [f"hm</think>{CALL}"]) == [TextDelta("hm</think>"), *call(0, "f", '{"a": 1}')]


def test_without_parsers_all_is_text() -> None:
    plain = output_parser(tool_call_parser=None, reasoning_parser=None)
    assert fed(plain, ["<think>", CALL]) == text("<think>" + CALL)


@pytest.mark.parametrize("given", [{"tool_call_parser": "x"}, {"reasoning_parser": "x"}])
def test_an_unknown_name_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="='x' is unknown; choose one of"):
        output_parser(**{"tool_call_parser": None, "reasoning_parser": None, **given})


TEMPLATES = [
    ("qwen2.5/tokenizer_config.json", "hermes", None),
    ("qwen3/tokenizer_config.json", "hermes", "think"),
    ("chat-templates/mistral-v3.jinja", "mistral", None),
    ("chat-templates/mistral-v13.jinja", "mistral", None),
    ("chat-templates/mistral-v13_think.jinja", "mistral", "mistral"),
    ("chat-templates/llama-3-instruct.jinja", None, None),
    ("chat-templates/chatml.jinja", None, None),
    ("chat-only/phi-4/tokenizer_config.json", None, None),
]


@pytest.mark.parametrize(("path", "tools", "reasoning"), TEMPLATES)
def test_a_template_tells_its_formats(path: str, tools: str | None, reasoning: str | None) -> None:
    source = shared_data("tokenizers", *path.split("/")).read_text()
    template = json.loads(source)["chat_template"] if path.endswith(".json") else source
    assert (detect_tool_call_parser(template), detect_reasoning_parser(template)) == (tools, reasoning)


def test_templates_of_llama_3_1_and_of_xml_between_the_same_tags() -> None:
    llama = '<|start_header_id|>{{ \'{"name": "\' }}{{ \'"parameters": \' }}<|python_tag|>'
    assert detect_tool_call_parser(llama) == "llama3_json"
    assert detect_tool_call_parser("<tool_call>\n<function=f>\n<parameter=a>") == "qwen3_coder"


def test_formats_whose_tags_are_special_tokens_say_so() -> None:
    assert needs_special_tokens("mistral", None) and needs_special_tokens(None, "mistral")
    assert not needs_special_tokens("hermes", "think")


KIMI = "<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>{}<|tool_call_end|>"
AMID: list[tuple[str, str, list[Event]]] = [
    # Models forget to close their thoughts: what follows a call is the answer.
    ("hermes", f"<think>I call.\n{CALL}", [ReasoningDelta("I call.\n"), *call(0, "f", '{"a": 1}')]),
    ("hermes", f"<think>{CALL}\nSo.</think>More.", [*call(0, "f", '{"a": 1}'), TextDelta("\nSo.More.")]),
    (
        "hermes",
        f"<think>Hm.\n{CALL}\n{CALL}</think>\n\n{CALL}",
        [ReasoningDelta("Hm.\n"), *(each for idx in range(3) for each in call(idx, "f", '{"a": 1}'))],
    ),
    # Amid a line text that looks like a mark is talk, and so is a tool that there is not.
    ("hermes", f"<think>I could {CALL} or <tool_call>.", [ReasoningDelta(f"I could {CALL} or <tool_call>.")]),
    ("hermes", "<think>\n<tool_call> it\n</think>So.", [ReasoningDelta("<tool_call> it"), TextDelta("So.")]),
    ("kimi_k2", f"<think>Now.{KIMI}", [ReasoningDelta("Now."), *call(0, "f", "{}", "f")]),
    ("kimi_k2", f"<think>Now.{KIMI.replace('>f<', '>g<')}", [ReasoningDelta(f"Now.{KIMI.replace('>f<', '>g<')}")]),
    ("llama3_json", '<think>{"name": "f", "parameters": {}}</think>So.', []),
]


@pytest.mark.parametrize(("name", "output", "expected"), AMID)
def test_a_call_amid_thoughts_ends_them(name: str, output: str, expected: list[Event]) -> None:
    if not expected:
        expected = [ReasoningDelta('{"name": "f", "parameters": {}}'), TextDelta("So.")]
    chance = random.Random(output)
    for pieces in ([output], list(output), *(cut(output, chance) for _ in range(9))):
        made = output_parser(tool_call_parser=name, reasoning_parser="think", tool_names=["f"], new_id=numbered)
        assert fed(made, pieces) == expected, pieces
