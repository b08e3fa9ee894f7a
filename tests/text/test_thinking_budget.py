"""When thinking has taken its tokens: counted from mark to mark, however a tokenizer writes the marks."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.params import ThinkingMarks
from albireo.text.thinking_budget import ThinkingMeter

BEGIN, END = "<think>", "</think>"


def meter(tokenizer: Any, budget: int, *, is_open: bool = False, again: str = "") -> ThinkingMeter:
    end = tuple(tokenizer.encode(END, add_special_tokens=False))
    marks = ThinkingMarks(begin=BEGIN, end=END, end_token_ids=end, is_open=is_open, again=again)
    return ThinkingMeter(tokenizer, marks, budget)


def driven(subject: ThinkingMeter, wants: list[int]) -> list[int]:
    """What comes out of a model that wants to say something."""
    said: list[int] = []
    for token in wants:
        forced = subject.forced(said)
        while forced is not None:
            said.append(forced)
            forced = subject.forced(said)
        said.append(token)
    return said


@pytest.mark.parametrize("name", ["story", "qwen2.5", "stories260k"])
@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("opening", ["<think>", "\n <think>", None])
def test_the_end_comes_when_the_budget_is_spent_and_once(
    tokenizer_of: Any, name: str, budget: int, opening: str | None
) -> None:
    tokenizer = tokenizer_of(name)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    head = encode(opening) if opening else []
    thoughts = encode("a fox and a dog and a cat went out to play all day long")
    subject = meter(tokenizer, budget, is_open=opening is None)
    said = driven(subject, [*head, *thoughts, *thoughts])
    cut = len(head) + budget
    assert said == [*head, *thoughts[:budget], *encode(END), *([*thoughts, *thoughts][budget:])]
    # Read anew, or after going back, it says the same.
    fresh = meter(tokenizer, budget, is_open=opening is None)
    assert [fresh.forced(said[:cut]), subject.forced(said[:cut]), subject.forced(said)] == [encode(END)[0]] * 2 + [None]


@pytest.mark.parametrize(
    "text", ["The fox <think>thought</think> and thought and thought.", "x<think>", "<thin the fox was thin as a wall"]
)
def test_what_does_not_begin_with_the_mark_is_no_thinking(tokenizer_of: Any, text: str) -> None:
    ids = tokenizer_of("story").encode(text, add_special_tokens=False)
    assert driven(meter(tokenizer_of("story"), 0), ids) == ids


def test_an_end_in_other_tokens_is_an_end(tokenizer_of: Any) -> None:
    """A model that learnt the marks as text may join their last character with what follows."""
    tokenizer = tokenizer_of("qwen2.5")
    wants = [*tokenizer.encode("a</think", add_special_tokens=False), tokenizer.encode(">\n\n")[0]]
    assert tokenizer.decode(wants) == "a</think>\n\n" and tuple(wants[1:]) != tuple(tokenizer.encode(END))
    wants += tokenizer.encode("So I say <think> is a word, and so on and on and on.", add_special_tokens=False)
    assert driven(meter(tokenizer, 4, is_open=True), wants) == wants


def test_thoughts_that_begin_like_the_end_do_not_confuse(tokenizer_of: Any) -> None:
    tokenizer = tokenizer_of("story")
    end = tokenizer.encode(END, add_special_tokens=False)
    assert len(end) > 1
    subject = meter(tokenizer, 3, is_open=True)
    said = [*tokenizer.encode("a", add_special_tokens=False)[:1]] * 2 + end[:1]
    for token in end:
        assert subject.forced(said) == token
        said.append(token)
    assert subject.forced(said) is None
    # Where something else came in between (a grammar had the last word), it begins again.
    assert meter(tokenizer, 0, is_open=True).forced([end[0], said[0]]) == end[0]


@pytest.mark.parametrize("name", ["story", "qwen2.5"])
@pytest.mark.parametrize("first", ["<think>", "I say so.<go><think>"])
def test_thoughts_in_several_parts_have_one_budget(tokenizer_of: Any, name: str, first: str) -> None:
    """As gpt-oss has them: messages of thought, of which any may follow what is said."""
    tokenizer = tokenizer_of(name)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    thoughts = encode("a fox and a dog and a cat went out to play") * 2
    begin, between, end = encode(first), encode("I say it.<go><think>"), encode(END)
    left = len(end) + 2
    subject = meter(tokenizer, 3 + left, again="<go><think>")
    said = driven(subject, [*begin, *thoughts[:3], *end, *between, *thoughts[: left + 1], *between, *thoughts[:2]])
    assert said == [
        *[*begin, *thoughts[:3], *end],
        *[*between, *thoughts[:left], *end, thoughts[left]],
        *[*between, *end, *thoughts[:2]],
    ]
    # With marks of which there is one pair, the rest is an answer.
    wants = [*encode("<think>"), *thoughts[:3], *end, *between, *thoughts]
    assert driven(meter(tokenizer, 3 + left), wants) == wants
