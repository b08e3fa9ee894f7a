"""Running commands: inside this process, which is quick, or as a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from albireo.cli.main import main
from brief_measurements import briefly

__all__ = ["albireo", "briefly", "process"]

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def albireo() -> Callable[..., Result]:
    """Runs a command line in this process; errors that are not meant to happen come through."""

    def run(*args: str, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a command line as a process that SIGINT ends, whoever runs the tests; the caller waits for it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str, **options: object) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": str(SOURCE), **options.pop("env", {})}  # type: ignore[dict-item]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so do theirs
        try:
            command = [sys.executable, "-m", "albireo", *args]
            started.append(subprocess.Popen(command, env=env, **{**streams, **options}))  # type: ignore[call-overload]
            return started[-1]
        finally:
            signal.signal(signal.SIGINT, before)

    yield start
    for child in started:
        with child:  # its pipes are closed, and it is waited for
            child.kill()  # where the caller did not come to wait
