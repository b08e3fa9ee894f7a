"""The small files round a vocabulary: what wins over what, and errors that name file and problem."""

from __future__ import annotations

import json
import os

import pytest

from albireo.errors import ModelError
from albireo.text.tokenizer_files import read_tokenizer_files
from albireo.text.vocabularies import vocabulary_files


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def _write(directory, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / name).write_text(text, encoding="utf-8")


def test_only_tokenizer_json_is_needed(directory):
    files = read_tokenizer_files(directory)
    assert (files.named, files.chat_templates, files.add_bos_token) == ({}, {}, None)


def test_tokens_as_strings_and_objects(directory):
    _write(
        directory,
        "tokenizer_config.json",
        {
            "bos_token": {"__type": "AddedToken", "content": "<s>"},
            "eos_token": "</s>",
            "pad_token": None,
            "image_token": "<img>",
            "add_bos_token": True,
            "additional_special_tokens": ["<a>", {"content": "<b>"}],
        },
    )
    files = read_tokenizer_files(directory)
    assert files.named == {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<img>"}
    assert files.extra_special == ("<a>", "<b>")
    assert files.add_bos_token is True


def test_special_tokens_map_speaks_only_without_added_tokens_decoder(directory):
    _write(directory, "special_tokens_map.json", {"eos_token": "<old>"})
    _write(directory, "tokenizer_config.json", {"eos_token": "<new>"})
    assert read_tokenizer_files(directory).named["eos_token"] == "<old>"
    _write(directory, "tokenizer_config.json", {"eos_token": "<new>", "added_tokens_decoder": {}})
    assert read_tokenizer_files(directory).named["eos_token"] == "<new>"


def test_templates_in_order_of_precedence(directory):
    _write(directory, "chat_template.json", {"chat_template": "from json"})
    assert read_tokenizer_files(directory).chat_templates == {"default": "from json"}
    _write(directory, "tokenizer_config.json", {"chat_template": "from config"})
    assert read_tokenizer_files(directory).chat_templates == {"default": "from config"}
    _write(directory, "chat_template.jinja", "from file")
    assert read_tokenizer_files(directory).chat_templates == {"default": "from file"}
    (directory / "additional_chat_templates").mkdir()
    _write(directory, "additional_chat_templates/tool_use.jinja", "tools")
    assert read_tokenizer_files(directory).chat_templates == {"default": "from file", "tool_use": "tools"}


@pytest.mark.parametrize(
    "value", [[{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}], {"default": "a", "rag": "b"}]
)
def test_named_templates(directory, value):
    _write(directory, "tokenizer_config.json", {"chat_template": value})
    assert read_tokenizer_files(directory).chat_templates == {"default": "a", "rag": "b"}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[1]", "holds a list, not an object"),
        ("[" * 100_000, "nested too deeply"),
        ({"bos_token": 5}, "bos_token=5 must be a string"),
        ({"eos_token": {"text": "a"}}, "eos_token="),
        ({"add_bos_token": "yes"}, "add_bos_token='yes' must be true or false"),
        ({"additional_special_tokens": 3}, "additional_special_tokens=3 must be a list"),
        ({"additional_special_tokens": [3]}, "must be a string"),
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder="),
        ({"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder has the entry 'x'"),
        ({"added_tokens_decoder": {"9" * 20: {}}}, "added_tokens_decoder has the entry"),
        ({"added_tokens_decoder": {"1": {"content": "a", "special": 1}}}, "flag that is not true or false"),
        ({"chat_template": 5}, "chat_template=5 must be a string"),
        ({"chat_template": [{"name": "a"}]}, "needs name and template"),
    ],
)
def test_damaged_config(directory, config, problem):
    _write(directory, "tokenizer_config.json", config)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json") as caught:
        read_tokenizer_files(directory)
    assert problem in str(caught.value)


def test_files_that_are_not_text(directory):
    (directory / "chat_template.jinja").write_bytes(b"\xff{{ a }}")
    with pytest.raises(ModelError, match=r"chat_template\.jinja: is not UTF-8 \(byte 0\)"):
        read_tokenizer_files(directory)


def test_files_that_are_no_files(directory):
    os.mkfifo(directory / "tokenizer_config.json")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: is not a regular file"):
        read_tokenizer_files(directory)


def test_missing_tokenizer_json_says_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json: is missing, and so is every other .*\(tekken\.json, vocab"):
        read_tokenizer_files(tmp_path)
    with pytest.raises(ModelError, match="is not a directory"):
        read_tokenizer_files(tmp_path / "absent")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_one_file_of_a_pair_is_no_vocabulary(tmp_path, name):
    (tmp_path / name).write_text("{}")
    assert vocabulary_files(tmp_path) == ()
    with pytest.raises(ModelError, match=rf"tokenizer\.json: is missing; {name} alone cannot be read\. Convert it"):
        read_tokenizer_files(tmp_path)


def test_of_several_vocabularies_the_first_is_read(tmp_path):
    assert vocabulary_files(tmp_path) == ()
    _write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "eos_token": "[END]"})
    _write(tmp_path, "vocab.json", {})
    _write(tmp_path, "merges.txt", "")
    files = read_tokenizer_files(tmp_path)
    assert vocabulary_files(tmp_path) == ("vocab.json", "merges.txt")
    assert (files.tokenizer.name, files.named["eos_token"], files.named["bos_token"]) == (
        *("vocab.json", "[END]", "<|endoftext|>"),
    )
    _write(tmp_path, "tekken.json", {})
    files = read_tokenizer_files(tmp_path)
    assert vocabulary_files(tmp_path) == ("tekken.json",)
    assert (files.tokenizer.name, files.named["eos_token"], files.named["bos_token"]) == ("tekken.json", "[END]", "<s>")
    _write(tmp_path, "tokenizer.json", {})
    files = read_tokenizer_files(tmp_path)
    assert vocabulary_files(tmp_path) == ("tokenizer.json",)
    assert (files.tokenizer.name, files.named) == ("tokenizer.json", {"eos_token": "[END]"})


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json"],
)
def test_a_link_to_nowhere_is_no_missing_file(directory, name):
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to("blob")
    with pytest.raises(ModelError, match=rf"{name}: cannot be read: .*\(a link to blob\)"):
        read_tokenizer_files(directory)
