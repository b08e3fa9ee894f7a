"""chat: turns from a pipe and on a terminal, its commands, and what it refuses."""

from __future__ import annotations

import os
import pty
import re
import shutil

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.cli import chat as chat_module
from albireo.cli.chat import Chat
from albireo.cli.media import Shown
from albireo.cli.session import Reply
from albireo.outputs import CompletionOutput, RequestOutput
from tiny_models import STORIES, shared_data

FLAGS = ("--seed", "1", "--max-tokens", "12", "--ignore-eos")


def test_lines_of_a_pipe_are_turns(albireo):
    result = albireo("chat", *FLAGS, stdin="hello\n\nand then?\n")
    assert result.exit_code == 0
    assert result.stderr == ""
    first = albireo("chat", *FLAGS, stdin="hello\n").stdout
    assert result.stdout.startswith(first)
    assert len(result.stdout) > len(first)
    assert ">" not in result.stdout.splitlines()[0][:2]


def test_reset_forgets(albireo):
    once = albireo("chat", *FLAGS, stdin="hello\n").stdout
    again = albireo("chat", *FLAGS, stdin="hello\n/reset\nhello\n")
    assert again.stdout == once * 2
    assert "forgotten" in again.stderr


def test_the_conversation_is_kept(albireo):
    result = albireo("chat", *FLAGS, "--stats", stdin="hello\nhello\n")
    prompts = re.findall(r"1 prompt of (\d+) tokens", result.stderr)
    assert len(prompts) == 2
    assert int(prompts[1]) >= int(prompts[0]) + 12  # the first answer is part of the second prompt


def test_exit_ends_it(albireo):
    result = albireo("chat", *FLAGS, stdin="/exit\nhello\n")
    assert (result.exit_code, result.stdout) == (0, "")


def test_stats_are_a_switch(albireo):
    result = albireo("chat", *FLAGS, stdin="/stats\nhello\n/stats\nhello\n")
    assert result.stderr.count("first token after") == 1
    assert "timings are on" in result.stderr
    assert "timings are off" in result.stderr


def test_an_unknown_command_is_not_a_message(albireo):
    result = albireo("chat", *FLAGS, stdin="/quit now\n")
    assert result.stdout == ""
    assert "/quit now is no command" in result.stderr
    assert "/exit" in result.stderr


def test_the_system_prompt_comes_first(albireo):
    plain = albireo("chat", *FLAGS, "--stats", stdin="hello\n")
    told = albireo("chat", *FLAGS, "--stats", "--system-prompt", "Tell of a dog.", stdin="hello\n")
    count = [int(re.search(r"of (\d+) tokens", each.stderr)[1]) for each in (plain, told)]
    assert count[1] > count[0]


def test_a_message_that_is_too_long_is_left_out(albireo):
    result = albireo("chat", *FLAGS, stdin=f"{'word ' * 600}\nhello\n")
    assert result.exit_code == 1
    assert "max_model_len=512" in result.stderr
    assert "/reset" in result.stderr
    assert result.stdout == albireo("chat", *FLAGS, stdin="hello\n").stdout


def test_a_full_context_says_so(albireo):
    result = albireo("chat", "--seed", "1", "--ignore-eos", stdin="hello\n")
    assert "the context of 512 tokens is full; /reset" in result.stderr


def test_a_model_without_a_template_is_refused_before_loading(albireo, tmp_path):
    shared_data("models", "stories260k")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(STORIES / name, tmp_path / name)  # and no weights
    result = albireo("chat", tmp_path, stdin="hello\n")
    assert result.exit_code == 1
    assert "has no chat template" in result.stderr
    assert f"albireo generate {tmp_path}" in result.stderr


def test_bad_parameters_are_refused_before_loading(albireo):
    result = albireo("chat", "/no/such/model", "--temperature", "-1", stdin="hello\n")
    assert result.exit_code == 1
    assert "temperature" in result.stderr


class _Interrupted:
    """A session whose run is interrupted after a few words."""

    def __init__(self, loaded):
        self.loaded = loaded
        self.seen = []

    def params(self, given, max_tokens):
        return None

    def chat(self, messages, params):
        raise AssertionError("nothing is prepared here")

    def run(self, requests, *, is_streaming):
        self.seen.append(requests)
        yield Reply(0, RequestOutput("0", None, [1], [CompletionOutput(0, "Some words", [5, 6])]))
        raise KeyboardInterrupt


class _Loaded:
    class settings:
        max_model_len = 100


def test_ctrl_c_on_a_terminal_stops_the_answer_and_keeps_it(monkeypatch, capsys):
    monkeypatch.setattr(chat_module.sys.stdin, "isatty", lambda: True, raising=False)
    chat = Chat(_Interrupted(_Loaded), {}, None, has_stats=False, shown=Shown())
    chat.say("hello")
    assert capsys.readouterr().out == "Some words\n"
    assert chat._messages[-1] == {"role": "assistant", "content": "Some words"}


def test_ctrl_c_ends_it_when_stdin_is_a_pipe(monkeypatch):
    monkeypatch.setattr(chat_module.sys.stdin, "isatty", lambda: False, raising=False)
    chat = Chat(_Interrupted(_Loaded), {}, None, has_stats=False, shown=Shown())
    with pytest.raises(KeyboardInterrupt):
        chat.say("hello")


def test_on_a_terminal_there_is_a_prompt(process):
    ours, theirs = pty.openpty()
    child = process("chat", *FLAGS, stdin=theirs, stdout=theirs, stderr=theirs, env={"TERM": "dumb"})
    os.close(theirs)
    os.write(ours, b"hello\n/exit\n")
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    assert child.wait() == 0
    assert BUNDLED.name.encode() + b": /reset" in shown
    assert shown.count(b"> ") == 2
