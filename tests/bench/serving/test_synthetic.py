"""Random prompts: their lengths, their shared beginnings, their seeds; counted by the bundled tokenizer."""

from __future__ import annotations

from itertools import takewhile

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.bench.serving.synthetic import PrefixRepetition, RandomPrompts
from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_directory(BUNDLED)


def count(tokenizer, prompt):
    return len(tokenizer.encode(prompt))


def beginning(texts):
    """What all begin with."""
    return "".join(chars[0] for chars in takewhile(lambda chars: len(set(chars)) == 1, zip(*texts, strict=False)))


def test_prompts_have_the_length_asked_for(tokenizer):
    found = RandomPrompts(input_len=40, output_len=9).requests(30, 0, tokenizer)
    assert [each.output_len for each in found] == [9] * 30
    lens = [count(tokenizer, each.prompt) for each in found]
    # A text now and then does not settle; most do, and none is far off.
    assert sum(num == 40 for num in lens) >= 27
    assert all(abs(num - 40) <= 2 for num in lens)
    num_special = len(tokenizer.encode(""))
    assert [each.prompt_len + num_special for each in found] == lens


def test_lengths_vary_as_asked(tokenizer):
    found = RandomPrompts(input_len=40, output_len=20, range_ratio=0.5).requests(60, 0, tokenizer)
    outputs = {each.output_len for each in found}
    assert min(outputs) >= 10 and max(outputs) <= 30 and len(outputs) > 10
    assert len({each.prompt_len for each in found}) > 10


def test_a_prefix_is_shared(tokenizer):
    found = RandomPrompts(input_len=20, output_len=1, prefix_len=30).requests(5, 0, tokenizer)
    shared = beginning([each.prompt for each in found])
    assert count(tokenizer, shared) >= 27
    plain = RandomPrompts(input_len=20, output_len=1).requests(5, 0, tokenizer)
    assert count(tokenizer, beginning([each.prompt for each in plain])) < 5


def test_seeds(tokenizer):
    dataset = RandomPrompts(input_len=10, output_len=1)
    assert dataset.requests(4, 7, tokenizer) == dataset.requests(4, 7, tokenizer)
    assert dataset.requests(4, 7, tokenizer) != dataset.requests(4, 8, tokenizer)


def test_prefixes_are_repeated(tokenizer):
    dataset = PrefixRepetition(prefix_len=24, suffix_len=8, num_prefixes=3, output_len=5)
    found = dataset.requests(10, 0, tokenizer)
    assert len(found) == 9  # a whole number of prompts for each prefix
    assert {each.output_len for each in found} == {5}
    beginnings = sorted(each.prompt[:40] for each in found)
    assert [beginnings.count(each) for each in sorted(set(beginnings))] == [3, 3, 3]
    assert [each.prompt[:40] for each in found] != beginnings
    in_order = PrefixRepetition(prefix_len=24, suffix_len=8, num_prefixes=3, is_shuffled=False)
    firsts = [each.prompt[:40] for each in in_order.requests(9, 0, tokenizer)]
    assert firsts[0] == firsts[1] == firsts[2] != firsts[3]


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (RandomPrompts(input_len=0), "input_len=0"),
        (RandomPrompts(output_len=0), "output_len=0"),
        (RandomPrompts(range_ratio=1.0), r"outside \[0, 1\)"),
        (PrefixRepetition(num_prefixes=5), "fewer than 5 prefixes"),
        (PrefixRepetition(num_prefixes=1, suffix_len=-1), "not allowed"),
    ],
)
def test_refusals(dataset, said, tokenizer):
    with pytest.raises(ConfigError, match=said):
        dataset.requests(3, 0, tokenizer)


def test_a_tokenizer_is_needed():
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        RandomPrompts().requests(1, 0, None)
