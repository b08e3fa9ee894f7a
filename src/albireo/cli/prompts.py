"""Prompts from the command line, a file or stdin -> a list of what to run, each knowing where it came from.

Used by generate.py. Does not know models: token ids and parameters are checked later.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import click

from albireo.api.sources.locate import is_hub_name
from albireo.errors import InvalidParams
from albireo.models.gguf.files import is_gguf
from albireo.params import FILLED_FIELDS, SamplingParams

InputFormat = Literal["auto", "text", "jsonl"]
STDIN = "-"
#: Of a beam search.
BEAM_FIELDS = ("beam_width", "length_penalty")
#: What a JSONL line may hold beside the parameters.
_PROMPT_KEYS = ("prompt", "prompt_token_ids", "messages")
_PARAMS = frozenset(f.name for f in fields(SamplingParams) if f.name not in FILLED_FIELDS) | set(BEAM_FIELDS)
_PATH = re.compile(r"(\.{0,2}/|~)\S*")
_GGUF = re.compile(r"\S+\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One prompt.

    Fields:
        prompt: text or token ids; empty where there are messages.
        fields: sampling parameters that came with it.
        where: for errors: "line 3 of prompts.jsonl"; empty for the command line.
        messages: a chat whose answer is wanted; what is in them is the engine's to check.
    """

    prompt: str | list[int]
    fields: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    messages: list[Any] | None = None


def split_arguments(model: str | None, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """MODEL and PROMPTs of a command line.

    The first argument is the model when it is a directory, or is written like one (./x, ../x, /x, ~/x), like a GGUF
    file (x.gguf) or like a hub name (owner/name) without a space. With --model every argument is a prompt.
    Raises: click.UsageError for the name of a file, which could be meant in several ways.
    """
    prompts = list(arguments)
    if model is not None or not prompts:
        return model, prompts
    first = prompts[0]
    is_file = _is_file(first)
    if _is_directory(first) or is_hub_name(first) or _PATH.fullmatch(first) or (is_file and is_gguf(Path(first))):
        return first, prompts[1:]
    if _GGUF.fullmatch(first):  # one that is not there is asked for all the same
        return first, prompts[1:]
    if is_file:
        raise click.UsageError(
            f"{first} is a file. To read prompts from it: --input-file {first}. As a prompt's text: --model MODEL too."
        )
    return None, prompts


def read_prompts(source: str, input_format: InputFormat) -> list[PromptLine]:
    """Prompts of a file, or of stdin ("-"): one a line, or a JSON object a line. Blank lines are skipped.

    auto: JSONL when the first line that is not blank begins with a brace.
    Raises: InvalidParams naming the first bad line; click.UsageError for a file that cannot be read.
    """
    name = "stdin" if source == STDIN else source
    # Not splitlines(): it also breaks at characters that JSON and prose may hold inside a line.
    numbered = enumerate(_read(source, name).split("\n"), 1)
    lines = [(number, line.removesuffix("\r")) for number, line in numbered if line.strip()]
    if not lines:
        raise InvalidParams(f"{name} holds no prompt; write one a line, or give it as an argument")
    if input_format == "auto":
        input_format = "jsonl" if lines[0][1].lstrip().startswith("{") else "text"
    if input_format == "text":
        return [PromptLine(line, where=f"line {number} of {name}") for number, line in lines]
    return list(_parse_lines(lines, name))


def _parse_lines(lines: Sequence[tuple[int, str]], name: str) -> Iterator[PromptLine]:
    for number, line in lines:
        where = f"line {number} of {name}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidParams(
                f"{where} is no JSON: {error.msg} at column {error.colno}; write an object with a prompt, "
                "or say --input-format text"
            ) from None
        except RecursionError:
            raise InvalidParams(f"{where} is nested too deeply") from None
        except ValueError as error:  # a number with thousands of digits
            raise InvalidParams(f"{where} is no JSON that can be read: {error}") from None
        yield parse_object(entry, where)


def parse_object(entry: Any, where: str) -> PromptLine:
    """One line's object: prompt (text or ids), prompt_token_ids or messages, and any field of SamplingParams or
    BEAM_FIELDS; null is left out.

    Raises: InvalidParams naming where, and what is wrong.
    """
    if not isinstance(entry, dict):
        raise InvalidParams(f"{where} is a JSON {type(entry).__name__}; it must be an object with a prompt")
    given = {key: value for key, value in entry.items() if value is not None}
    prompts = {key: given.pop(key) for key in _PROMPT_KEYS if key in given}
    if len(prompts) != 1:
        how = f"both {' and '.join(prompts)}" if prompts else f"neither {' nor '.join(_PROMPT_KEYS)}"
        raise InvalidParams(f"{where} has {how}; give one of them")
    for key in given:
        if key not in _PARAMS:
            near = difflib.get_close_matches(key, [*_PROMPT_KEYS, *_PARAMS], n=1)
            hint = f"did you mean {near[0]}?" if near else "it must be a field of SamplingParams"
            raise InvalidParams(f"{where} has the unknown field {key!r}; {hint}")
    ((key, value),) = prompts.items()
    if key != "messages":
        return PromptLine(_prompt(value, where), given, where)
    if not isinstance(value, list):
        raise InvalidParams(f"{where}: messages must be a list of messages, got {value!r:.60}")
    return PromptLine("", given, where, value)


def _prompt(value: Any, where: str) -> str | list[int]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(type(item) is int for item in value):
        return value
    raise InvalidParams(f"{where}: the prompt must be text or a list of token ids, got {value!r:.60}")


def _read(source: str, name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{source} cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidParams(f"line {line} of {name} is not UTF-8; save it as UTF-8") from None


def _is_directory(text: str) -> bool:
    return _exists_as(text, lambda path: path.is_dir())


def _is_file(text: str) -> bool:
    return _exists_as(text, lambda path: path.is_file())


def _exists_as(text: str, kind: Callable[[Path], bool]) -> bool:
    """False for text that cannot be a path: empty, too long, or with a zero byte."""
    try:
        return text != "" and kind(Path(text).expanduser())
    except (OSError, ValueError, RuntimeError):
        return False
