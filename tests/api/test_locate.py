"""Model names."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from albireo.api.sources import locate
from albireo.api.sources.locate import BUNDLED, is_hub_name, locate_model
from albireo.errors import ModelError


def test_nothing_is_the_bundled_model() -> None:
    assert locate_model(None) == BUNDLED
    assert (BUNDLED / "model.safetensors").stat().st_size < 25_000_000


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_directory_one_stands_in(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="the model's name is empty"):
        locate_model(name)


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert locate_model(str(tmp_path)) == tmp_path


def test_a_file_and_a_missing_directory_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="is a file; give the directory"):
        locate_model(str(file))
    with pytest.raises(ModelError, match="there is no directory"):
        locate_model(str(tmp_path / "a" / "b" / "c"))


@pytest.mark.parametrize(
    ("name", "is_one"), [("Qwen/Qwen3-0.6B", True), ("a/b/c", False), ("./a", False), ("x", False)]
)
def test_hub_names(name: str, is_one: bool) -> None:
    assert is_hub_name(name) is is_one


def test_without_the_extra_a_hub_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(locate, "find_spec", lambda name: None if name == "huggingface_hub" else real(name))
    with pytest.raises(ModelError, match=re.escape("pip install 'albireo[hub]'")):
        locate_model("nobody/nothing")
