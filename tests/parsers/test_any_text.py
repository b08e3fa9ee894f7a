"""Texts that no model means to write: a parser goes on whatever comes, and pieces change nothing of what it makes."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from albireo.parsers.tool_formats import TOOL_CALL_PARSERS
from parsers.cutting import cut, fed, numbered
from parsers.model_calls import FORMATS, SCHEMAS

HARMONY = '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>to=self'
OTHERS = ("x" * 600, "\n", " ", "{", "}", '"', "<", "<|", "\\", "[", "]", "é😀", "f", "get.time", "0", "null")


@contextmanager
def it_ends() -> Iterator[None]:
    """Whatever is done here; else all tests would wait for ever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the parser does not go on")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def parser(name: str) -> Any:
    made = TOOL_CALL_PARSERS[name]
    return made(new_id=numbered) if name == "openai" else made(new_id=numbered, schemas=SCHEMAS)  # type: ignore[call-arg]


def texts(name: str, count: int) -> Iterator[str]:
    """Of pieces of calls, in any order."""
    chance = random.Random(name)
    sources = [each.text for each in FORMATS if each.name == name] or [HARMONY]
    for _ in range(count):
        marks = chance.choice([r"(<[^<>]*>|\[[^\[\]]*\])", r'(\s+|[<>\[\]{}():=,"|]+|\w+)'])
        pieces = [piece for piece in re.split(marks, chance.choice(sources)) if piece]
        number = chance.randrange(1, 40)
        yield "".join(chance.choice(pieces if chance.random() < 0.85 else OTHERS) for _ in range(number))


@pytest.mark.parametrize("name", TOOL_CALL_PARSERS)
def test_any_text_is_read_to_its_end_and_alike_in_pieces(name: str) -> None:
    chance = random.Random(name)
    for output in texts(name, 20):
        with it_ends():
            whole = fed(parser(name), [output])
            assert whole == fed(parser(name), cut(output, chance)) == fed(parser(name), list(output)), output


@pytest.mark.parametrize("name", ["openai", "muse_glimmer"])
def test_a_header_that_does_not_end_is_text(name: str) -> None:
    for before in ("", "<|channel|>final<|message|>It is", "to=user<|message|>It is"):
        with it_ends():
            events = fed(parser(name), [f"{before}<|start|>", "x" * 300, "y" * 300])
        said = "".join(getattr(event, "text", "") for event in events)
        assert said.endswith("x" * 300 + "y" * 300)


def test_a_head_that_is_too_long_ends_where_it_is_too_long() -> None:
    """However much of the text has come: the call behind it is one."""
    output = f"\n<function={'x' * 600}\n<function=get.time>{{}}</function>"
    assert fed(parser("functionary_v3_1"), [output]) == fed(parser("functionary_v3_1"), list(output))
    assert any(getattr(event, "name", "") == "get.time" for event in fed(parser("functionary_v3_1"), [output]))
