"""Marks of a gap are found in tokenizers that have them; a prompt with them is transformers', token for token."""

from __future__ import annotations

import pytest

from albireo.text.infill import infill_marks
from albireo.text.tokenizer import Tokenizer
from tiny_models import shared_data

PREFIX, SUFFIX = "def add(a, b):\n    return", "\n\nprint(add(1, 2))\n"


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_the_marks_of_a_real_tokenizer(name: str) -> None:
    folder = shared_data("tokenizers", name)
    transformers = pytest.importorskip("transformers")
    ours, theirs = Tokenizer.from_directory(folder), transformers.AutoTokenizer.from_pretrained(folder)
    marks = infill_marks(ours.added_tokens())
    assert marks is not None
    text = f"<|fim_prefix|>{PREFIX}<|fim_suffix|>{SUFFIX}<|fim_middle|>"  # as Qwen's card has it
    assert marks.joined(PREFIX, SUFFIX) == text
    ids = ours.encode(text)
    assert ids == theirs(text).input_ids
    places = [ids.index(theirs.convert_tokens_to_ids(f"<|fim_{part}|>")) for part in ("prefix", "suffix", "middle")]
    assert places[0] == 0 and places[2] == len(ids) - 1
    assert theirs.decode(ids[1 : places[1]]) == PREFIX and theirs.decode(ids[places[1] + 1 : -1]) == SUFFIX
    ends = {theirs.decode([token]) for token in marks.end_token_ids}
    assert {"<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<|fim_prefix|>"} <= ends


@pytest.mark.parametrize("name", ["gpt2", "mistral-v3"])
def test_there_are_none_in_others(name: str) -> None:
    assert infill_marks(Tokenizer.from_directory(shared_data("tokenizers", name)).added_tokens()) is None


@pytest.mark.parametrize(
    ("tokens", "prompt"),
    [
        (["<fim_prefix>", "<fim_middle>", "<fim_suffix>"], "<fim_prefix>a<fim_suffix>b<fim_middle>"),
        (["<fim-prefix>", "<fim-middle>", "<fim-suffix>"], "<fim-prefix>a<fim-suffix>b<fim-middle>"),
        (
            ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<|endoftext|>"],
            "<｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>",
        ),
    ],
)
def test_each_family_has_its_own(tokens: list[str], prompt: str) -> None:
    added = {token: number for number, token in enumerate(tokens)}
    marks = infill_marks(added)
    assert marks is not None and marks.joined("a", "b") == prompt and sorted(marks.end_token_ids) == [0, 1, 2]
    assert infill_marks({token: number for token, number in added.items() if number}) is None
