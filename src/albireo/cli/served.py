"""What the commands that ask the server's endpoints share: their settings, and what is said without the extra.

Used by serve.py and run_batch.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from albireo.api.locate import locate_model
from albireo.errors import ConfigError
from albireo.server.settings import ServerSettings


class ServedCommand(click.Command):
    """Takes several adapters behind one --lora-modules, as vLLM does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flag, is_behind = "--lora-modules", False
        found: list[str] = []
        for arg in args:
            is_module = is_behind and ("=" in arg or arg.startswith("{")) and not arg.startswith("-")
            if is_module and found[-1] != flag:
                found.append(flag)
            is_behind = is_module or arg == flag
            found.append(arg)
        return super().parse_args(ctx, found)


def server_settings(model: str | None, server: dict[str, Any], engine: dict[str, Any]) -> ServerSettings:
    """The settings that flags ask for; the model's directory goes into engine. Raises: ConfigError, ModelError."""
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in server.items()}
    if model is not None:
        name, model = split_name(model)
        if name is not None and "served_model_name" in given:
            raise ConfigError(f"the model is named {name}, and served_model_name is given, too; leave one of them out")
        engine["model"] = str(locate_model(model))
        given.setdefault("served_model_name", (name or default_name(model),))
    if given.get("lora_modules") and not engine.get("enable_lora"):
        raise ConfigError("lora_modules needs enable_lora; give --enable-lora, too")
    return ServerSettings(**given)


def other_models(models: Sequence[str], server: dict[str, Any]) -> dict[str, str]:
    """Of several models those behind the first: name -> where it is. Raises: ConfigError, ModelError."""
    if len(models) < 2:
        return {}
    if server.get("served_model_name"):
        raise ConfigError("served_model_name names one model, and there are several; write NAME=MODEL for each")
    found: dict[str, str] = {}
    first, _ = _named(models[0])
    for text in models[1:]:
        name, model = _named(text)
        if name in (first, *found):
            raise ConfigError(f"two models answer to {name!r:.100}; name them: NAME=MODEL")
        found[name] = str(locate_model(model))
    return found


def split_name(text: str) -> tuple[str | None, str]:
    """NAME=MODEL in two, and what is no such thing without a name."""
    name, sign, model = text.partition("=")
    if not sign or not name.strip() or not model or Path(text).expanduser().exists():
        return None, text
    return name.strip(), model


def _named(text: str) -> tuple[str, str]:
    name, model = split_name(text)
    return name or default_name(model), model


def default_name(model: str) -> str:
    """What a model answers to that was given no name."""
    return Path(model).name if Path(model).is_dir() else model


@contextmanager
def needs_serve(command: str) -> Iterator[None]:
    """Around imports of what the extra 'serve' brings. Raises: ConfigError without it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("albireo"):
            raise
        raise ConfigError(
            f"albireo {command} needs the extra 'serve' ({error.name} is missing): pip install 'albireo[serve]'"
        ) from None
