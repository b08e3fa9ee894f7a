"""Files of prompts: what is taken from them, what is left out, and what is said of broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.bench.serving.conversations import Custom, ShareGpt
from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "prompts"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_directory(BUNDLED)


def turns(*texts):
    return {"conversations": [{"from": "human", "value": text} for text in texts]}


@pytest.fixture
def sharegpt(tmp_path):
    entries = [
        turns("Tell me about a big red dog.", "He is a very good dog and he likes to run."),
        turns("no answer"),
        turns("a", "Too short a prompt for anyone to care about it."),
        turns("An answer that is too short to count.", "No."),
        turns("word " * 3000, "Too long a prompt for anyone to care about it."),
        {"id": "something else"},
        turns("What did the little girl see in the park?", "She saw a cat, a tree and a bird.", "And then?"),
    ]
    (tmp_path / "s.json").write_text(json.dumps(entries))
    return tmp_path / "s.json"


def test_sharegpt_takes_first_turns_that_fit(sharegpt, tokenizer):
    found = ShareGpt(path=sharegpt, is_shuffled=False, oversamples=False).requests(9, 0, tokenizer)
    assert [each.prompt[:4] for each in found] == ["Tell", "What"]
    assert found[0].prompt_len == len(tokenizer.encode("Tell me about a big red dog."))
    assert found[0].output_len == len(tokenizer.encode("He is a very good dog and he likes to run."))


def test_a_length_of_ones_own_makes_short_answers_count(sharegpt, tokenizer):
    found = ShareGpt(path=sharegpt, output_len=3, is_shuffled=False, oversamples=False).requests(9, 0, tokenizer)
    assert [(each.prompt[:4], each.output_len) for each in found] == [("Tell", 3), ("An a", 3), ("What", 3)]


def test_too_few_prompts_are_repeated(sharegpt, tokenizer):
    found = ShareGpt(path=sharegpt).requests(20, 0, tokenizer)
    assert len(found) == 20
    assert len({each.prompt for each in found}) == 2
    assert len(ShareGpt(path=sharegpt).requests(1, 0, tokenizer)) == 1


def test_the_sharegpt_form_of_others(tokenizer):
    path = SHARED / "sharegpt-form-dummy.json"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    found = ShareGpt(path=path, output_len=8).requests(10, 0, tokenizer)
    assert len(found) == 10
    assert all(each.prompt_len >= 4 for each in found)


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"prompt": "One fish", "output_tokens": 5}\n\n{"prompt": "Two fish"}\n')
    return tmp_path / "c.jsonl"


def test_custom(lines, tokenizer):
    found = Custom(path=lines, output_len=7, is_shuffled=False, uses_template=False).requests(2, 0, tokenizer)
    assert [(each.prompt, each.output_len) for each in found] == [("One fish", 7), ("Two fish", 7)]
    assert found[0].prompt_len == len(tokenizer.encode("One fish"))


def test_custom_without_a_tokenizer(lines):
    found = Custom(path=lines, is_shuffled=False).requests(3, 0, None)
    assert [(each.prompt, each.prompt_len) for each in found[:2]] == [("One fish", 0), ("Two fish", 0)]
    assert len(found) == 3


def test_custom_puts_a_template_round_where_there_is_one(lines, tokenizer):
    found = Custom(path=lines, is_shuffled=False).requests(1, 0, tokenizer)[0].prompt
    assert ("One fish" in found) and (found != "One fish") == bool(tokenizer.chat_templates)


def test_custom_says_which_line(lines, tokenizer):
    with pytest.raises(ConfigError, match="line 3: has no number of at least 1"):
        Custom(path=lines, output_len=-1).requests(2, 0, tokenizer)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no line"),
        ("{oops", "line 1: is not JSON"),
        ("[1]", "line 1: is list, not an object"),
        ('{"text": "a"}', "line 1: has no text"),
        ('{"prompt": 3}', "line 1: has no text"),
    ],
)
def test_broken_lines(text, said, tmp_path):
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=said):
        Custom(path=tmp_path / "c.jsonl").requests(1, 0, None)


@pytest.mark.parametrize("text", ["{}", "[{}]", '[{"conversations": [{}, {}]}]', "[3]", "nothing"])
def test_files_of_another_form(text, tmp_path, tokenizer):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ConfigError, match=r"is not in ShareGPT's form|holds no conversation"):
        ShareGpt(path=tmp_path / "s.json").requests(1, 0, tokenizer)
    with pytest.raises(ConfigError, match="cannot be read"):
        ShareGpt(path=tmp_path / "absent").requests(1, 0, tokenizer)
