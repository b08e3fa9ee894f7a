"""The albireo command: finds its commands by file name, and turns what goes wrong into one line and an exit code.

Called by the shell (pyproject's entry point) and by __main__.py. A command's file is imported when the command runs,
so that help costs nothing; it defines `command`, and its docstring's first line is the help.
Does not know what any command does.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

import click

from albireo import __version__
from albireo.errors import EngineError

#: Files of this room that are not commands.
_ROOM = frozenset(["main", "options", "prompts", "session", "terminal", "timings", "writers"])
#: What a shell reports for a process that SIGINT or SIGPIPE ended.
INTERRUPTED, BROKEN_PIPE = 130, 141


class _Commands(click.Group):
    """Commands are the other files of this folder."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = (module.name for module in pkgutil.iter_modules([str(_folder())]))
        return sorted(name for name in found if name not in _ROOM)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from their files' text: nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name)) for name in self.list_commands(ctx)])

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


def _folder() -> Path:
    return Path(__file__).parent


def _summary(name: str) -> str:
    """First line of the docstring of a command's file."""
    docstring = ast.get_docstring(ast.parse((_folder() / f"{name}.py").read_text("utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="albireo")
@click.option("--traceback", is_flag=True, hidden=True, help="Show where an error was raised.")
def main(traceback: bool) -> None:
    """Run language models on this machine: text, chat, measurements."""
