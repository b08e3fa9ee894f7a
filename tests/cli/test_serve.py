"""albireo serve: what reaches the server, and what is refused before it begins."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import albireo.server.run
from albireo.cli import serve
from albireo.server.settings import TEMPLATE_KWARGS, ServerSettings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(albireo.server.run, "serve", lambda settings, engine, say: calls.append((settings, engine)))
    return calls


def test_nothing_named(albireo: Any, served: list[Any]) -> None:
    assert albireo("serve").exit_code == 0
    assert served == [(ServerSettings(), {})]
    assert served[0][0].chat_template_kwarg == TEMPLATE_KWARGS


def test_flags_reach_both(albireo: Any, served: list[Any], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\n\n two \n")
    args = ["--port", "0", "--api-key", "zero", "--api-key", f"@{keys}", "--no-log-requests", "--max-num-seqs", "3"]
    assert albireo("serve", *args, "--served-model-name", "a", "--served-model-name", "b").exit_code == 0
    settings, engine = served[0]
    assert settings.api_key == ("zero", "one", "two")
    assert (settings.port, settings.log_requests, settings.served_model_name) == (0, False, ("a", "b"))
    assert engine == {"max_num_seqs": 3}


def test_a_directory_gives_its_name(albireo: Any, served: list[Any], tmp_path: Path) -> None:
    (tmp_path / "fox").mkdir()
    assert albireo("serve", str(tmp_path / "fox")).exit_code == 0
    settings, engine = served[0]
    assert settings.served_model_name == ("fox",) and engine == {"model": str(tmp_path / "fox")}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--api-key", "@/nowhere"], "the file cannot be read"),
        (["--port", "99999"], "port=99999"),
        (["nowhere"], "no directory nowhere"),
        (["--ssl-keyfile", "key.pem"], "ssl_certfile"),
    ],
)
def test_what_cannot_be(albireo: Any, served: list[Any], args: list[str], words: str) -> None:
    result = albireo("serve", *args)
    assert result.exit_code == 1 and words in result.stderr and served == []


def test_without_the_extra(albireo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "albireo.server.run")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = albireo("serve")
    assert result.exit_code == 1 and "pip install 'albireo[serve]'" in result.stderr


def test_each_setting_has_a_flag_and_a_help() -> None:
    names = {param.name: param for param in serve.command.params}
    for field in fields(ServerSettings):
        assert getattr(names[field.name], "help", None), field.name
