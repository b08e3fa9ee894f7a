"""A group whose commands are the other files of its folder: found by name, imported when they run.

Used by main.py and by commands that are folders themselves. A command's file (or its folder's __init__) defines
`command`, and has its name with _ for -; the first line of its docstring is the help. Does not know what any command
does.
"""

from __future__ import annotations

import ast
import difflib
import gc
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click


@contextmanager
def uncollected() -> Iterator[None]:
    """For imports of much, once a process. All of it stays: looking for garbage meanwhile is a tenth of their time for
    nothing, and looking through it again, at the end of the process above all, a tenth of a second."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


class FolderGroup(click.Group):
    """Args: package: whose files are the commands; room: those that are not."""

    def __init__(self, *args: Any, package: str, room: frozenset[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._package, self._room = package, room

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = (module.name for module in pkgutil.iter_modules([str(self._folder())]))
        return sorted(name.replace("_", "-") for name in found if name not in self._room)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        name = f"{self._package}.{_module(cmd_name)}"
        if name not in sys.modules:
            with uncollected():
                importlib.import_module(name)
        command: click.Command = sys.modules[name].command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it, but for a name that is none: what there is is said, the nearest first."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not ctx.resilient_parsing and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], names)
            said = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
            ctx.fail(f"no such command {args[0]!r}; {said}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from their files' text: nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(name)) for name in self.list_commands(ctx)])

    def _folder(self) -> Path:
        spec = find_spec(self._package)
        assert spec is not None and spec.origin is not None  # the package that called
        return Path(spec.origin).parent

    def _summary(self, name: str) -> str:
        """First line of the docstring of a command's file."""
        file = self._folder() / f"{_module(name)}.py"
        text = (file if file.exists() else self._folder() / name / "__init__.py").read_text("utf-8")
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].rstrip(".")


def _module(command: str) -> str:
    """The name of its file."""
    return command.replace("-", "_")
