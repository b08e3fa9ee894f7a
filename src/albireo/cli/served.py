"""What the commands that ask the server's endpoints share: their settings, and what is said without the extra.

Used by serve.py and run_batch.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from albireo.api.sources.locate import locate_model
from albireo.api.sources.other_stores import LM_STUDIO, OLLAMA
from albireo.cli.other_flags import all_others, other_words
from albireo.errors import ConfigError
from albireo.server.settings import ServerSettings
from albireo.vllm_flags import HONOURED, is_so_anyway, known, turned_off, words

_NAMES, _ADAPTERS = "--served-model-name", "--lora-modules"
#: Flags whose value is an object in JSON.
_OBJECTS = (
    "--hf-overrides",
    "--mm-processor-kwargs",
    "--speculative-config",
    "--limit-mm-per-prompt",
    "--override-generation-config",
    "--default-chat-template-kwargs",
)


class ServedCommand(click.Command):
    """Takes flags as vLLM does: several names or adapters behind one flag, _ for -, objects key by key; and says what
    ours are called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = {flag for param in self.params for flag in param.opts + param.secondary_opts}
        all_flags = ours.union(known(), all_others())
        all_flags |= {"--no-" + flag.removeprefix("--") for flag in all_flags}
        found = _spread(_without_honoured([_dashed(arg, all_flags) for arg in args], ours))
        try:
            found = _whole(found)
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None
        try:
            return super().parse_args(ctx, list(found))
        except click.NoSuchOption as error:
            # a short flag is told by its first letter
            flags = (arg.partition("=")[0] for arg in found if arg.startswith(error.option_name))
            told = ((words(flag) or other_words(flag)) for flag in flags if flag not in ours)
            said = next((said for said in told if said is not None), None)
            if said is None:
                raise
            raise click.UsageError(said, ctx) from None


def _dashed(arg: str, flags: set[str]) -> str:
    """A flag as it is spelled here."""
    flag, sign, value = arg.partition("=")
    dashed = flag.replace("_", "-")
    return dashed + sign + value if flag.startswith("--") and flag not in flags and dashed in flags else arg


def _whole(args: list[str]) -> list[str]:
    """Objects that are given key by key, as `--hf-overrides.rope_theta 5`, each as one flag with its JSON; a value that
    is no JSON is a text.

    Raises: ValueError saying what is wrong.
    """
    objects: dict[str, dict[str, Any]] = {}
    found, rest = list[str](), list(args)
    while rest:
        arg = rest.pop(0)
        spelled, sign, value = arg.partition("=")
        flag, _, keys = spelled.partition(".")
        flag = flag.replace("_", "-")
        if not keys or flag not in _OBJECTS:
            found.append(arg)
            continue
        if not sign and not rest:
            raise ValueError(f"Option '{spelled}' requires an argument.")
        _put(objects.setdefault(flag, {}), keys.split("."), value if sign else rest.pop(0), spelled)
    for flag in objects:
        if any(arg.partition("=")[0] == flag for arg in found):
            raise ValueError(f"{flag} is given as a whole and key by key; give one of the two")
    return [*(part for flag, value in objects.items() for part in (flag, json.dumps(value))), *found]


def _put(value: dict[str, Any], keys: list[str], text: str, spelled: str) -> None:
    """One value of an object, below the keys. Raises: ValueError where two do not go together."""
    *outer, last = keys
    for key in outer:
        value = value.setdefault(key, {})
        if not isinstance(value, dict):
            raise ValueError(f"{spelled}: {key} has a value already, which is no object")
    if not all(keys) or last in value:
        raise ValueError(f"{spelled} " + ("is given twice" if last in value else "has an empty key"))
    try:
        value[last] = json.loads(text)
    except (ValueError, RecursionError):
        value[last] = text


def _without_honoured(args: list[str], ours: set[str]) -> list[str]:
    """Without what asks for what is so anyway, a switch or a flag and its value; a line tells of each."""
    taken, found, rest = dict[str, str](), list[str](), list(args)
    while rest:
        arg = rest.pop(0)
        flag, sign, value = arg.partition("=")
        if arg in HONOURED:
            taken[arg] = str(words(arg))
        elif (why := turned_off(arg, ours)) is not None:
            taken[arg] = f"{arg} is not needed: {why}"
        elif flag not in ours and is_so_anyway(flag, value if sign else "".join(rest[:1])):
            said = f"{flag} {value if sign else rest.pop(0)}"
            taken[said] = f"{said} is not needed: it is so anyway"
        else:
            found.append(arg)
    for said in taken.values():
        click.echo(f"note: {said}", err=True)
    return found


def _spread(args: list[str]) -> list[str]:
    """Each name and adapter with its flag. Adapters are told by their sign; names go on to the next flag where the
    model stands in front, as `vllm serve MODEL` has it: else what comes behind the first may be the model. (Of other
    lists too much would be guessed: a second model is no second key.)
    """
    has_model = bool(args) and not args[0].startswith("-")
    last, found = "", list[str]()
    for arg in args:
        if arg.startswith("-"):
            last = arg
        elif last and found[-1] != last and not _is_more(arg, last, has_model):
            last = ""
        elif last and found[-1] != last:
            found.append(last)
        found.append(arg)
    return found


def _is_more(arg: str, flag: str, has_model: bool) -> bool:
    """Whether a value behind another is one of the same flag."""
    if flag == _ADAPTERS:
        return "=" in arg or arg.startswith("{")
    return flag == _NAMES and has_model


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
    if model.startswith((OLLAMA, LM_STUDIO)):
        return model.partition(":")[2].rstrip("/").removesuffix(":latest")
    place = Path(model).expanduser()
    # also of ".", which has none itself; links keep the name that they have
    return os.path.basename(os.path.abspath(place)) if place.is_dir() else model


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
