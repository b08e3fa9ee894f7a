"""Strict reading of JSON: what a hostile file gives is always one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.errors import ModelError, UnsupportedModel
from albireo.json_file import Fields, parse_json, read_json
from albireo.models.checkpoint.safetensors_file import SafetensorsFile
from albireo.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "holds a list"),
        (b"null", "holds a NoneType"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1, "a": 2}', "key 'a' appears twice"),
        (b'{"x": {"b": 1, "b": 1}}', "key 'b' appears twice"),
        (b'{"a": "\xff"}', r"not UTF-8 \(byte 7\)"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_hostile_text(data: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"here: .*{reason}"):
        parse_json(data, "here")


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_a_model_error(data: bytes) -> None:
    try:
        assert isinstance(parse_json(data, "here"), dict)
    except ModelError as error:
        assert str(error).startswith("here: ")


def test_pipes_and_directories_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match="not a regular file"):
        read_json(tmp_path / "config.json")
    with pytest.raises(ModelError, match="not a regular file"):
        read_json(tmp_path)


def test_missing_and_huge_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: cannot be read: No such file"):
        read_json(tmp_path / "config.json")
    with (tmp_path / "big.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ModelError, match="at most"):
        read_json(tmp_path / "big.json")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", read_json),
        ("model.safetensors", SafetensorsFile),
        ("tokenizer.json", lambda path: Tokenizer.from_directory(path.parent)),
    ],
)
def test_pointers_of_git_lfs_are_named(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1f2e\nsize 5368709120\n")
    with pytest.raises(ModelError, match=rf"{name}: is a pointer of Git LFS"):
        read(tmp_path / name)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 4000])
def test_numbers_that_are_none_are_refused_where_they_are_read(value: str) -> None:
    fields = Fields(parse_json(b'{"a": ' + value.encode() + b"}", "here"), "here")
    with pytest.raises(ModelError, match=r"here: a=.*must be a number from 0 to 1"):
        fields.number("a", 0, 1)
    with pytest.raises(ModelError, match=r"here: a=.*must be a whole number"):
        fields.integer("a", 0, 1)
    assert fields.unread([], {}) == []
    assert Fields(parse_json(b'{"a": ' + value.encode() + b"}", "here"), "here").unread([], {}) == ["a"]


def test_unread_keys_are_remembered() -> None:
    fields = Fields({"a": 1, "b": 2, "c": None, "d": 0, "e": 5, "f": 1.0}, "here")
    assert fields.integer("a", 0, 9) == 1
    assert fields.unread(["b"], {"f": (1.0,)}) == ["e"]
    assert fields.unread([], {"f": (True,), "d": (1,)}) == ["b", "d", "e", "f"]


def test_two_names_of_a_key_may_say_the_same_alone() -> None:
    fields = Fields({"new": 4, "old": 4, "other": 8, "nothing": None}, "f")
    assert fields.one_name("old", "new") == "old" and fields.one_name("nothing", "new") == "new"
    assert fields.one_name("nothing", "absent") == "absent"
    with pytest.raises(ModelError, match="f: old=4 contradicts other=8; keep one"):
        fields.one_name("nothing", "old", "new", "other")
    assert not fields.unread((), {})


def test_values_that_are_not_known_are_named_beside_those_that_are() -> None:
    fields = Fields({"kind": "b", "other": "c", "step": 2}, "f", {"kind_here": "kind"})
    assert fields.one_of("kind_here", ("a", "b")) == "b" and fields.one_of("absent", {"a": 1}, "a") == "a"
    with pytest.raises(UnsupportedModel, match=r"^f: other='c' is not supported; supported: a, b$"):
        fields.one_of("other", ("a", "b"), "a")
    with pytest.raises(ModelError, match="step=2 must be a string"):
        fields.one_of("step", ("a",))
    fields.only("step", 2)
    fields.only("absent", 3)
    with pytest.raises(UnsupportedModel, match=r"^f: step=2 is not supported; supported: 3$"):
        fields.only("step", 3)
