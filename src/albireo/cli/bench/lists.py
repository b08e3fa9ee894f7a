"""Options that take several values after one flag, as vLLM's argparse has them: --goodput ttft:200 tpot:50.

Used by serve.py. For commands without arguments only: a value is what does not begin with a dash.
"""

from __future__ import annotations

import click

from albireo.errors import ConfigError


class ListCommand(click.Command):
    """A command whose options with multiple=True may also be given once with several values behind."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat such a flag before each of its values, which is the form click knows."""
        lists = {flag for each in self.params if getattr(each, "multiple", False) for flag in each.opts}
        spread: list[str] = []
        flag, has_value = "", True
        for arg in args:
            if not flag or arg.startswith("-"):
                _check(flag, has_value)
                flag, has_value = (arg, False) if arg in lists else ("", True)
                spread += [] if flag else [arg]
            else:
                spread += [flag, arg]
                has_value = True
        _check(flag, has_value)
        return super().parse_args(ctx, spread)


def _check(flag: str, has_value: bool) -> None:
    if not has_value:
        raise click.BadOptionUsage(flag, f"Option {flag!r} requires at least one value.")


def pairs(given: tuple[str, ...], flag: str, separator: str = "=") -> dict[str, str]:
    """KEY=VALUE strings as a dictionary. Raises: ConfigError for one without the separator."""
    found = {}
    for text in given:
        key, found_one, value = text.partition(separator)
        if not found_one or not key.strip():
            raise ConfigError(f"{flag} {text!r} is not of the form KEY{separator}VALUE")
        found[key.strip()] = value.strip()
    return found
