"""The albireo command: finds its commands by file name, and turns what goes wrong into one line and an exit code.

Called by the shell (pyproject's entry point) and by __main__.py. A command's file is imported when the command runs,
so that help costs nothing (folder.py).
Does not know what any command does.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from albireo import __version__
from albireo.cli.folder import FolderGroup
from albireo.errors import EngineError
from albireo.process_limits import shortage_of

#: Files of this room that are not commands.
_ROOM = frozenset(
    [
        "environment",
        "facts",
        "folder",
        "main",
        "media",
        "options",
        "other_flags",
        "prompts",
        "served",
        "session",
        "terminal",
        "timings",
        "writers",
    ]
)
#: What commands say that have no --device.
_NO_DEVICE = {
    "build": "--target cuda:90 builds for a GPU, on any machine",
    "verify": "a directory is looked at where it was built for",
    "tune": "it measures kernels of the processor, and no others",
    "quantize": "it computes on the processor, and what it writes runs on any device",
}
#: What a shell reports for a process that SIGINT or SIGPIPE ended.
INTERRUPTED, BROKEN_PIPE = 130, 141


class _Commands(FolderGroup):
    """Commands are the other files of this folder."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click has it, but for what cannot be written before a command is chosen: help, the version."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if not kwargs.get("standalone_mode", True):
                raise
            _drop_output()
            click.echo(f"error: {error.strerror or error}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Errors raised on purpose, and the system's, become a line; a reader who went away, or Ctrl-C,
        end it quietly."""
        _open_missing_streams()
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except click.NoSuchOption as error:
            command = None if error.ctx is None else error.ctx.info_name
            if error.option_name != "--device" or command not in _NO_DEVICE:
                raise
            raise click.UsageError(f"No such option '--device': {_NO_DEVICE[command]}.", error.ctx) from None
        except (EngineError, MemoryError, RuntimeError) as error:
            said = error if isinstance(error, EngineError) else shortage_of(error)
            if ctx.params["traceback"] or said is None:
                raise
            click.echo(f"error: {said}", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            _drop_output()
            ctx.exit(BROKEN_PIPE)
        except OSError as error:
            if ctx.params["traceback"]:
                raise
            _drop_output()
            where = "" if error.filename is None else f"{error.filename}: "
            click.echo(f"error: {shortage_of(error) or f'{where}{error.strerror or error}'}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _open_missing_streams() -> None:
    """A process may be started without stdin, stdout or stderr; nothing is read or written there then.

    Their numbers are taken too, so that no file opened later becomes what is printed to.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _drop_output() -> None:
    """What is buffered still and cannot be written: without this the interpreter complains about it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=_Commands,
    package=__package__,
    room=_ROOM,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="albireo")
@click.option("--traceback", is_flag=True, hidden=True, help="Show where an error was raised.")
def main(traceback: bool) -> None:
    """Run language models on this machine: text, chat, measurements."""
