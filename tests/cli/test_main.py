"""Commands are found by file name, help is light, and what goes wrong ends in a line and an exit code."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from albireo import __version__
from albireo.cli import main as main_module
from albireo.cli.main import main

SOURCE = Path(main_module.__file__).parent
COMMANDS = (
    "bench", "build", "chat", "doctor", "generate", "inspect", "plan", "quantize", "run-batch", "serve",
    "transcribe", "tune", "verify",
)  # fmt: skip
HEAVY = ("numpy", "tokenizers", "jinja2", "tqdm", "huggingface_hub", "albireo._native", "albireo.api.load")


def docstring(command):
    return importlib.import_module(f"albireo.cli.{command.replace('-', '_')}").__doc__


def test_help_lists_every_command_with_its_docstring(albireo):
    result = albireo("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        first_line = docstring(name).splitlines()[0].rstrip(".")
        assert f"  {name} " in result.stdout
        assert " ".join(first_line.split()) in " ".join(result.stdout.split())


def test_every_other_file_is_of_the_room():
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    files = {path.stem for path in SOURCE.glob("*.py")} - {"__init__"} | folders
    assert files == main_module._ROOM | {name.replace("-", "_") for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_begins_like_its_file(name, albireo):
    result = albireo(name, "--help")
    assert result.exit_code == 0
    first_line = docstring(name).splitlines()[0]
    assert " ".join(first_line.split()) in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("build", "--target cuda:90"),
        ("verify", "where it was built for"),
        ("tune", "processor"),
        ("quantize", "any device"),
    ],
)
def test_commands_without_a_device_say_what_decides_instead(command, said, albireo):
    result = albireo(command, "somewhere", "--device", "cuda")
    assert result.exit_code == 2 and said in result.stderr and "No such option '--device': " in result.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from albireo.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('\\n', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(SOURCE.parents[1])}
    shown = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "generate" in shown
    assert shown.rstrip().endswith("[]")


def test_version(albireo):
    assert albireo("--version").stdout.split() == ["albireo,", "version", __version__]


def test_unknown_command_is_a_usage_error(albireo):
    result = albireo("generat")
    assert result.exit_code == 2
    assert "no such command 'generat'; did you mean generate?" in result.stderr
    assert "'latncy'; did you mean latency?" in albireo("bench", "latncy").stderr
    assert "no such command 'xyz'; there are bench, build, chat" in " ".join(albireo("xyz").stderr.split())


def test_an_error_is_one_line_without_a_traceback(albireo, tmp_path):
    result = albireo("inspect", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert str(tmp_path) in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_traceback_on_request(process, tmp_path):
    child = process("--traceback", "inspect", str(tmp_path))
    _, stderr = child.communicate()
    assert child.returncode == 1
    assert b"Traceback" in stderr
    assert b"ModelError" in stderr


def test_a_reader_who_went_away_ends_it_quietly(process):
    reading, writing = os.pipe()
    os.close(reading)
    child = process("generate", "Once upon a time", "--max-tokens", "8", stdout=writing)
    os.close(writing)
    _, stderr = child.communicate()
    assert child.returncode == main_module.BROKEN_PIPE
    assert stderr == b""


def test_a_full_disk_is_one_line(process):
    with open("/dev/full", "wb") as full:
        child = process("generate", "Once upon a time", "--max-tokens", "2", "--output", "jsonl", stdout=full)
        _, stderr = child.communicate()
    assert (child.returncode, stderr) == (1, b"error: No space left on device\n")


@pytest.mark.parametrize("asked", [("--help",), ("--version",), ("generate", "--help")], ids=" ".join)
def test_help_that_cannot_be_written_is_one_line(process, asked):
    with open("/dev/full", "wb") as full:
        child = process(*asked, stdout=full)
        _, stderr = child.communicate()
    assert (child.returncode, stderr) == (1, b"error: No space left on device\n")


@pytest.mark.parametrize(("prompts", "code"), [(("Once",), 0), ((), 1)], ids=["a prompt", "stdin"])
def test_a_process_may_be_without_streams(prompts, code):
    command = [sys.executable, "-m", "albireo", "generate", "--max-tokens", "2", *prompts]
    env = {**os.environ, "PYTHONPATH": str(SOURCE.parents[1])}
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, env=env, check=False).returncode == code


def test_interrupt_ends_it_quietly(process, tmp_path):
    fifo = tmp_path / "prompts"
    os.mkfifo(fifo)
    child = process("generate", "--input-file", str(fifo))
    with fifo.open("wb"):  # open when the child has opened it too: it reads now
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate()
    assert child.returncode == main_module.INTERRUPTED
    assert (stdout, stderr) == (b"", b"")


def test_module_runs_like_the_command(process):
    child = process("inspect", "--help")
    stdout, _ = child.communicate()
    assert child.returncode == 0
    assert b"Usage: " in stdout


def test_main_is_a_click_group_for_the_entry_point():
    assert isinstance(main, click.Group)
    assert json.dumps(main.list_commands(click.Context(main))) == json.dumps(sorted(COMMANDS))
