"""Sizes and durations as text; bars on terminals only."""

from __future__ import annotations

import io
import sys

import pytest

from albireo.cli.terminal import Bar, count, duration, plain, progress, row, size


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (11 * 2**20, "11.0 MiB"), (2**50, "1024.0 TiB")],
)
def test_size(value, text):
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (1500, "1.5 K"), (5_475_584, "5.48 M"), (7 * 10**9, "7 B")])
def test_count(value, text):
    assert count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0412, "41.2 ms"), (1.0, "1.00 s"), (75.5, "75.50 s")])
def test_duration(value, text):
    assert duration(value) == text


def test_control_characters_are_shown_not_obeyed():
    assert plain("a\x1b[31m\tb\nc\x07 é×") == "a\ufffd[31m\ufffdb\nc\ufffd é×"


def test_rows_line_up():
    assert row("a", "x").index("x") == row("some name", "x").index("x")


def test_no_bar_without_a_terminal(capsys):
    assert list(progress(range(3), "Work")) == [0, 1, 2]
    with Bar(5, "Work") as bar:
        bar.advance()
        bar.step_aside()
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    assert list(progress(range(3), "Work")) == [0, 1, 2]
    assert "Work" in shown.getvalue()
    with Bar(5, "Other") as bar:
        bar.advance()
    assert "Other" in shown.getvalue()


def test_no_bar_for_a_single_thing(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with Bar(1, "Work") as bar:
        bar.advance()
    assert shown.getvalue() == ""
