"""Prompt lookup against a search that looks at everything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.speculative import ngram
from albireo.speculative.ngram import NgramProposer
from albireo.speculative.proposer import method_of
from albireo.speculative_config import SpeculativeConfig


def searched(tokens: list[int], num: int, shortest: int, longest: int) -> list[int]:
    """What followed the newest of the longest matches; a match that reaches the end goes on with itself."""
    for length in range(longest, shortest - 1, -1):
        for place in range(len(tokens) - 1, length - 1, -1):
            if tokens[place - length : place] == tokens[len(tokens) - length :]:
                drafts = tokens[place : place + num]
                while len(drafts) < num:
                    drafts.append((tokens + drafts)[place + len(drafts)])
                return drafts
    return []


def test_what_followed_the_last_tokens() -> None:
    proposer = NgramProposer([1, 2, 3, 4, 5, 6, 9], shortest=2, longest=4)
    assert proposer.propose([], 3) == ([], 0)
    assert proposer.propose([2, 3], 3) == ([4, 5, 6], 0)
    assert proposer.propose([2, 3, 4], 2) == ([5, 6], 1)
    assert proposer.propose([2, 3, 4, 5], 1) == ([6], 2)
    assert proposer.propose([2, 3, 4, 5, 6], 4) == ([9, 2, 3, 4], 2), "at most four are compared"
    assert proposer.propose([2, 3, 4, 5, 6, 7], 4) == ([], 0)


def test_the_longest_match_counts_and_of_those_the_newest() -> None:
    prompt = [1, 2, 3, 10, 9, 2, 3, 20, 1, 2, 3, 30, 8, 2, 3, 40]
    assert NgramProposer([*prompt, 1, 2, 3], shortest=2, longest=3).propose([], 1) == ([30], 1)
    assert NgramProposer([*prompt, 7, 2, 3], shortest=2, longest=3).propose([], 1) == ([40], 0)


def test_what_repeats_is_taken_to_go_on() -> None:
    assert NgramProposer([4, 4, 4], shortest=2, longest=3).propose([], 5) == ([4] * 5, 0)
    assert NgramProposer([1, 2, 1, 2], shortest=2, longest=3).propose([], 5) == ([1, 2, 1, 2, 1], 0)


@given(
    prompt=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    output=st.lists(st.integers(0, 3), max_size=60),
    lengths=st.tuples(st.integers(1, 4), st.integers(0, 3)),
    num=st.integers(1, 6),
    at_once=st.integers(1, 7),
)
def test_as_a_search_finds_it(
    prompt: list[int], output: list[int], lengths: tuple[int, int], num: int, at_once: int
) -> None:
    shortest, longest = lengths[0], sum(lengths)
    with pytest.MonkeyPatch.context() as patch:
        # As many as there are, and a table that grows and has hashes that fall together.
        patch.setattr(ngram, "MAX_CANDIDATES", 1000)
        patch.setattr(ngram, "_MIN_SLOTS", 2)
        proposer = NgramProposer(prompt, shortest=shortest, longest=longest)
        for end in range(0, len(output) + 1, at_once):
            drafts, kind = proposer.propose(output[:end], num)
            assert drafts == searched(prompt + output[:end], num, shortest, longest)
            assert 0 <= kind <= longest - shortest


def test_a_guess_looks_at_few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty places with the same last two tokens; the one with three is beyond those looked at."""
    prompt = [7, 1, 2, 99]
    for other in range(20):
        prompt += [100 + other, 1, 2, 50 + other]
    assert NgramProposer([*prompt, 7, 1, 2], shortest=2, longest=3).propose([], 1) == ([69], 0)
    monkeypatch.setattr(ngram, "MAX_CANDIDATES", 30)
    assert NgramProposer([*prompt, 7, 1, 2], shortest=2, longest=3).propose([], 1) == ([99], 1)


def test_the_method_of_a_config() -> None:
    config: Any = SpeculativeConfig(method="ngram", prompt_lookup_min=1, prompt_lookup_max=3)
    method = method_of(config)
    assert method.num_kinds == 3
    assert method.proposer([5, 6, 5]).propose([], 2) == ([6, 5], 0)
