"""Options that several commands share, made from the dataclasses they fill.

Used by the command files. A new public field becomes a flag of every command by itself; its help is its line in the
dataclass's docstring. Does not know what the fields do.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from albireo.config import EngineConfig
from albireo.params import SamplingParams

F = TypeVar("F", bound=Callable[..., Any])

#: vLLM's other names, kept, and the one of build.
_ALIASES = {
    "memory_utilization": ("--gpu-memory-utilization",),
    "structured_outputs_backend": ("--structured-outputs-config.backend", "--guided-decoding-backend"),
    "otlp_endpoint": ("--otlp-traces-endpoint",),
    "tensor_parallel_size": ("--tp", "-tp"),
    "data_parallel_size": ("--dp", "-dp"),
}
#: Fields that are lists: their flags may be given several times.
_LISTS = (
    "stop",
    "without",
    "allowed_media_domains",
    "allowed_origins",
    "served_model_name",
    "lora_modules",
    "api_key",
    "chat_template_kwarg",
)
#: Fields of SamplingParams that a flag can carry; the rest need JSONL or Python.
SAMPLING_FLAGS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "n",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "ignore_eos",
)
_SAMPLING_HELP = {
    "max_tokens": "Most tokens to produce; by default {max_tokens}, unless the model recommends a number.",
    "temperature": "0 takes the likeliest token.",
    "top_p": "Draw from the smallest set of tokens with this much probability.",
    "top_k": "Draw from the K likeliest tokens; 0: from all.",
    "min_p": "Leave out tokens less likely than this fraction of the likeliest.",
    "seed": "The same seed gives the same text.",
    "stop": "End before this text (\\n is a line break, \\t a tab, \\\\ a backslash); may be given several times.",
    "n": "Continuations of each prompt.",
    "repetition_penalty": "Above 1: tokens seen before get less likely.",
    "presence_penalty": "Subtracted from the logit of tokens produced before.",
    "frequency_penalty": "Subtracted for each time a token was produced.",
    "logprobs": "Log-probabilities of this many best tokens at each place, and of the chosen one.",
    "ignore_eos": "Go on after the model's end of text.",
}


def engine_options(*, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """A flag for each field of EngineConfig but the model and those named.

    The command gets `engine`, a dict of the ones that were set.
    """
    names = [field.name for field in fields(EngineConfig) if field.name not in ("model", *without)]
    return _options(EngineConfig, names, _help(EngineConfig), "engine")


def server_options(*, only: tuple[str, ...] | None = None) -> Callable[[F], F]:
    """A flag for each field of ServerSettings, or for those named; the command gets `server`, a dict of those that were
    set."""
    from albireo.server.settings import ServerSettings  # of other commands nobody needs it

    names = [field.name for field in fields(ServerSettings) if only is None or field.name in only]
    return _options(ServerSettings, names, _help(ServerSettings), "server")


def sampling_options(*, max_tokens: str, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """The flags of SAMPLING_FLAGS but those named; the command gets `sampling`, a dict of those that were set.

    Args: max_tokens: what the command does without the flag, in words.
    """
    names = [name for name in SAMPLING_FLAGS if name not in without]
    helps = {name: text.format(max_tokens=max_tokens) for name, text in _SAMPLING_HELP.items()}
    return _options(SamplingParams, names, helps, "sampling")


def apply(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _options(owner: type[Any], names: list[str], helps: dict[str, str], into: str) -> Callable[[F], F]:
    hints = get_type_hints(owner)
    defaults = {field.name: field.default for field in fields(owner)}

    def collect(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        """Put what was set into one dict; what was not stays the dataclass's business."""
        given: dict[str, Any] = ctx.params.setdefault(into, {})
        if value is not None and value != ():
            given[str(param.name)] = list(value) if isinstance(value, tuple) else value

    def decorate(command: F) -> F:
        for name in reversed(names):
            kind = hints[name]
            command = click.option(
                *_declarations(name, is_on_by_default=kind is bool and defaults[name] is True),
                name,
                type=_click_type(name, kind),
                is_flag=kind is bool or None,
                multiple=name in _LISTS,
                default=None,
                expose_value=False,
                callback=collect,
                help=helps.get(name),
            )(command)
        return command

    return decorate


def _declarations(name: str, is_on_by_default: bool) -> Iterator[str]:
    flag = "--" + name.replace("_", "-")
    yield f"{flag}/--no-{flag[2:]}" if is_on_by_default else flag
    yield from _ALIASES.get(name, ())


def _unescaped(text: str) -> str:
    """What a shell has no plain word for is written with a backslash."""
    return re.sub(r"\\([nt\\])", lambda found: {"n": "\n", "t": "\t", "\\": "\\"}[found[1]], text)


def _click_type(name: str, kind: Any) -> Any:
    if name == "stop":
        unescaped = click.types.FuncParamType(_unescaped)
        unescaped.name = "text"  # in the help
        return unescaped
    if name in _LISTS:
        return str
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(arg for arg in get_args(kind) if arg is not type(None))
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    # the text of an object
    return str if is_dataclass(kind) or get_origin(kind) is Mapping else kind


def _help(owner: type[Any]) -> dict[str, str]:
    """Field -> its text in the docstring of a dataclass, where None stands for a flag that is left out."""
    found = re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", owner.__doc__ or "", re.MULTILINE)
    defaults = {field.name: field.default for field in fields(owner)}
    helps = {}
    for name, text in found:
        words = re.sub(r"None(?: or -1)?: ", "by default ", re.sub(r"\s+", " ", text))
        shown = defaults.get(name)
        is_shown = isinstance(shown, (int, float, str)) and not isinstance(shown, bool)
        helps[name] = words[:1].upper() + words[1:] + (f"  [default: {shown}]" if is_shown else "")
    return helps
