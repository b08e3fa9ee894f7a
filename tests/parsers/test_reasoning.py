"""What was thought and what is said, with and without the tags, in the template or in the output."""

from __future__ import annotations

import random

import pytest

from albireo.parsers.events import Event, ReasoningDelta, TextDelta
from albireo.parsers.reasoning import REASONING_PARSERS, THINK, ReasoningParser, is_open
from parsers.cutting import cut, fed

CASES: list[tuple[str, bool, str, str, str]] = [
    # parser, whether the prompt opened it, output, reasoning, answer
    ("think", False, "<think>\nWell, 1 < 2.\n</think>\n\nYes.", "Well, 1 < 2.", "Yes."),
    ("think", False, " \n<think>a\n\nb</think>c\n", "a\n\nb", "c\n"),
    ("think", False, "<think>\n\n</think>\n\nYes.", "", "Yes."),
    ("think", False, "No thoughts, <think>only</think> text", "", "No thoughts, <think>only</think> text"),
    ("think", False, "  text", "", "  text"),
    ("think", False, "<think>never over </thin", "never over </thin", ""),
    ("think", False, "<think>over</think>", "over", ""),
    ("think", False, "<thin", "", "<thin"),
    ("think", False, "<", "", "<"),
    ("think", False, "", "", ""),
    ("think", False, " ", "", " "),
    ("think", False, "<think>a<think>b</think>c</think>", "a<think>b", "c</think>"),
    ("think", True, "\nso it is\n</think>\n\nYes.", "so it is", "Yes."),
    ("think", True, "<think>written twice</think>Yes.", "written twice", "Yes."),
    ("think", True, "no end", "no end", ""),
    ("think", True, "</think>Yes.", "", "Yes."),
    ("qwen3", False, "Yes.", "", "Yes."),
    ("deepseek_r1", False, "so it is</think>\nYes.", "so it is", "Yes."),
    ("deepseek_r1", False, "<think>\nso it is</think>Yes.", "so it is", "Yes."),
    ("deepseek_r1", False, "<th", "<th", ""),
    ("mistral", False, "[THINK]hm[/THINK]Yes.", "hm", "Yes."),
]


def expected(reasoning: str, answer: str) -> list[Event]:
    thought: list[Event] = [ReasoningDelta(reasoning)] if reasoning else []
    return [*thought, *([TextDelta(answer)] if answer else [])]


@pytest.mark.parametrize(("name", "starts_inside", "output", "reasoning", "answer"), CASES, ids=range(len(CASES)))
def test_what_is_thought_and_what_is_said(
    name: str, starts_inside: bool, output: str, reasoning: str, answer: str
) -> None:
    chance = random.Random(output)
    for pieces in ([output], list(output), *(cut(output, chance) for _ in range(8))):
        parser = ReasoningParser(REASONING_PARSERS[name], starts_inside=starts_inside)
        assert fed(parser, pieces) == expected(reasoning, answer), pieces


def test_cutting_rubbish_changes_nothing() -> None:
    chance = random.Random(3)
    fragments = ["<think>", "</think>", "<th", "ink>", "</", "\n", "\n\n", " ", "a", "<", "é"]
    for _ in range(400):
        output = "".join(chance.choices(fragments, k=chance.randrange(10)))
        for inside in (False, True):
            whole = fed(ReasoningParser(THINK, starts_inside=inside), [output])
            assert fed(ReasoningParser(THINK, starts_inside=inside), list(output)) == whole, output


@pytest.mark.parametrize("piece", ["<think>", "</think>", "\n", "</thin", "<", "a\n"])
@pytest.mark.parametrize("size", [5, 10**6])
def test_work_grows_with_the_text_and_no_faster(piece: str, size: int) -> None:
    parser = ReasoningParser(THINK)
    output = "<think>" + piece * (30_000 // len(piece))
    for start in range(0, len(output), size):
        parser.push(output[start : start + size])
    parser.finish()
    assert parser.num_scanned < 4 * len(output)


def test_a_prompt_says_whether_it_opened_the_reasoning() -> None:
    assert is_open("<|assistant|><think>\n", THINK)
    assert not is_open("<|assistant|><think>\n\n</think>\n\n", THINK)
    assert not is_open("<think> is a tag<|assistant|>", THINK)
