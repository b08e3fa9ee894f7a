"""Prompts that people wrote: a file in ShareGPT's form, or lines of JSON with a prompt each.

The rules by which vLLM picks and prunes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albireo.bench.serving.request import ServeRequest, needed
from albireo.errors import ConfigError
from albireo.text.chat_prompt import ChatEncoder
from albireo.text.tokenizer import Tokenizer

#: vLLM's: shorter prompts or answers are left out, and so are longer ones.
_MIN_LEN, _MAX_PROMPT_LEN, _MAX_TOTAL_LEN = 4, 1024, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGpt:
    """First turns of conversations; the second turn says how long the answer is to be, unless output_len does.

    Fields:
        oversamples: whether prompts are repeated, at random, when the file has fewer than wanted.
    """

    path: Path
    output_len: int | None = None
    is_shuffled: bool = True
    oversamples: bool = True

    def requests(self, num_prompts: int, seed: int, tokenizer: Tokenizer | None) -> list[ServeRequest]:
        """Raises: ConfigError for a file that is not of this form, or of which nothing can be used."""
        words, rng = needed(tokenizer, "sharegpt"), np.random.default_rng(seed)
        try:
            entries = [each["conversations"] for each in json.loads(_read(self.path)) if "conversations" in each]
            turns = [(each[0]["value"], each[1]["value"]) for each in entries if len(each) >= 2]
        except (ValueError, TypeError, LookupError) as error:
            raise ConfigError(f"{self.path} is not in ShareGPT's form: {error}") from None
        order = rng.permutation(len(turns)) if self.is_shuffled else range(len(turns))
        found: list[ServeRequest] = []
        for i in order:
            if len(found) == num_prompts:
                break
            prompt, answer = turns[i]
            prompt_len = len(words.encode(prompt))
            output_len = len(words.encode(answer)) if self.output_len is None else self.output_len
            if self._is_fit(prompt_len, output_len):
                found.append(ServeRequest(prompt, prompt_len, output_len))
        if not found:
            raise ConfigError(
                f"{self.path} holds no conversation with a prompt of {_MIN_LEN} to {_MAX_PROMPT_LEN} tokens and at "
                f"most {_MAX_TOTAL_LEN} with its answer"
            )
        return _oversampled(found, num_prompts, rng) if self.oversamples else found

    def _is_fit(self, prompt_len: int, output_len: int) -> bool:
        is_long_enough = prompt_len >= _MIN_LEN and (self.output_len is not None or output_len >= _MIN_LEN)
        return is_long_enough and prompt_len <= _MAX_PROMPT_LEN and prompt_len + output_len <= _MAX_TOTAL_LEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """Lines of JSON: {"prompt": "...", "output_tokens": 10}.

    Fields:
        output_len: tokens to ask for; None or -1: the line's output_tokens.
        uses_template: whether the tokenizer's chat template, if it has one, is put round each prompt.
    """

    path: Path
    output_len: int | None = 256
    uses_template: bool = True
    is_shuffled: bool = True
    oversamples: bool = True

    def requests(self, num_prompts: int, seed: int, tokenizer: Tokenizer | None) -> list[ServeRequest]:
        """Raises: ConfigError naming the line that cannot be used."""
        rng = np.random.default_rng(seed)
        lines = list(self._lines())
        order = rng.permutation(len(lines)) if self.is_shuffled else range(len(lines))
        chat = ChatEncoder(tokenizer) if tokenizer and self.uses_template and tokenizer.chat_templates else None
        found = []
        for i in [*order][:num_prompts]:
            prompt, output_len = lines[i]
            if chat is not None:
                prompt = chat.encode([{"role": "user", "content": prompt}]).text
            # Without a tokenizer only the server can count them.
            prompt_len = len(tokenizer.encode(prompt)) if tokenizer else 0
            found.append(ServeRequest(prompt, prompt_len, output_len))
        return _oversampled(found, num_prompts, rng) if self.oversamples else found

    def _lines(self) -> Iterator[tuple[str, int]]:
        is_empty = True
        for number, line in enumerate(_read(self.path).splitlines(), 1):
            if line.strip():
                is_empty = False
                yield self._line(f"{self.path}, line {number}", line)
        if is_empty:
            raise ConfigError(f"{self.path} holds no line")

    def _line(self, where: str, line: str) -> tuple[str, int]:
        entry = json_object(where, line)
        if not isinstance(entry.get("prompt"), str):
            raise ConfigError(f'{where}: has no text under "prompt"')
        if self.output_len not in (None, -1):
            return entry["prompt"], int(self.output_len or 0)
        wanted = entry.get("output_tokens")
        if not isinstance(wanted, int) or wanted < 1:
            raise ConfigError(f'{where}: has no number of at least 1 under "output_tokens"; give --custom-output-len')
        return entry["prompt"], wanted


def json_object(where: str, line: str) -> dict[str, Any]:
    """One line of JSON. Raises: ConfigError naming the place when it is no object."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: is not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: is {type(entry).__name__}, not an object")
    return entry


def _oversampled(found: list[ServeRequest], num_prompts: int, rng: np.random.Generator) -> list[ServeRequest]:
    return found + [found[i] for i in rng.integers(0, len(found), max(0, num_prompts - len(found)))]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
