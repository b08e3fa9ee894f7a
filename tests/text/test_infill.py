"""Marks of a gap are found in tokenizers that have them; a prompt with them is transformers', token for token."""

from __future__ import annotations

import json
from pathlib import Path

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


#: (prefix, suffix) -> what mistral_common 1.13 makes of it with its tokenizer v3, FIMRequest(prompt, suffix).
CODESTRAL: list[tuple[str, str, list[int]]] = [
    (
        PREFIX,
        SUFFIX,
        [1, 13, 781, 781, 2799, 29500, 1756, 29500, 29508, 29493, 29473, 29518, 1511, 781, 11, 1569, 1735, 29500, 29476,
         29493, 1055, 2097, 781, 3055, 1372],
    ),
    ("  x = ", "y\n", [1, 13, 29492, 781, 11, 1027, 2086, 1095, 29473]),
    ("The cat", " and was happy.", [1, 13, 1072, 1171, 5378, 29491, 11, 1183, 6023]),
    ("é", "é 世", [1, 13, 29565, 29473, 30818, 11, 2001]),
]  # fmt: skip


@pytest.mark.parametrize(("prefix", "suffix", "expected"), CODESTRAL)
def test_codestral_reads_what_is_behind_the_gap_first(prefix: str, suffix: str, expected: list[int]) -> None:
    ours = Tokenizer.from_directory(shared_data("tokenizers", "mistral-v3"))
    marks = infill_marks(ours.added_tokens())
    assert marks is not None and marks.ids(ours, prefix, suffix) == expected
    assert marks.ids(ours, prefix, suffix, add_special_tokens=False) == expected[1:]
    assert marks.joined("a", "b") == "[SUFFIX]b[PREFIX]a" and set(marks.end_token_ids) == {11, 12, 13}


def test_code_llama_reads_its_parts_by_themselves(tmp_path: Path) -> None:
    """Its marks in a vocabulary of that kind. transformers' class for it is the oracle where what is behind the gap
    begins with a space: of other texts it puts one in front since its version 5."""
    transformers = pytest.importorskip("transformers")
    known = json.loads((shared_data("tokenizers", "mistral-v1") / "tokenizer.json").read_text())
    *_, end = known["added_tokens"]
    names = ("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>")
    known["added_tokens"] += [{**end, "id": 32000 + i, "content": name} for i, name in enumerate(names)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(known))
    config = {"tokenizer_class": "CodeLlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = Tokenizer.from_directory(tmp_path), transformers.CodeLlamaTokenizer.from_pretrained(tmp_path)
    marks = infill_marks(ours.added_tokens())
    assert marks is not None and marks.end_token_ids == (32000, 32002, 32001, 32003)
    for prefix, suffix in ((PREFIX, f" {SUFFIX}"), ("The cat", " and was happy."), ("  x", "  y")):
        assert marks.ids(ours, prefix, suffix) == theirs(prefix, suffix=suffix).input_ids
    ids = marks.ids(ours, "The cat", "and was")
    assert theirs.convert_ids_to_tokens(ids) == ["<s>", "▁<PRE>", "▁The", "▁cat", "▁<SUF>", "and", "▁was", "▁<MID>"]


@pytest.mark.parametrize("name", ["gpt2", "mistral-v1"])
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
