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

#: Files of this room that are not commands.
_ROOM = frozenset(["facts", "folder", "main", "options", "prompts", "session", "terminal", "timings", "writers"])
#: What a shell reports for a process that SIGINT or SIGPIPE ended.
INTERRUPTED, BROKEN_PIPE = 130, 141


class _Commands(FolderGroup):
    """Commands are the other files of this folder."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Errors raised on purpose become a line; a reader who went away, or Ctrl-C, end it quietly."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except EngineError as error:
            if ctx.params["traceback"]:
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            # What is still buffered has no reader either; without this the interpreter complains at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


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
