"""Published traces, replayed: when requests came, how long they were, and which prefixes they shared.

Two forms: lines of JSON with hash ids of blocks (Mooncake, Qwen-Bailian), and Azure's CSV of times and token counts.
Neither holds a prompt. Equal hash ids become equal tokens, so prompts share the prefixes that the trace's shared.
Prompts are token ids, as in vLLM, so that blocks stay blocks; only completions take them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from albireo.bench.serving.conversations import json_object
from albireo.bench.serving.request import ServeRequest, needed
from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer

_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace: time_s from the first, lengths in tokens as they will be sent."""

    time_s: float
    input_len: int
    output_len: int
    hash_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTrace:
    """A trace and how it is scaled: the first rows, never a sample, since sharing and bursts live in the order.

    Fields:
        chunk_hash_size: tokens that one hash id stands for when sent: 512 in Mooncake's, 16 in Qwen's.
        sec_multiplier: makes seconds of the file's times, and may stretch them: 0.001 for milliseconds.
        len_multiplier: of every length, for a machine smaller than the trace's; at least one token is left.
        labels: names of the fields in lines of JSON, by ours.
        has_times: whether the trace's times are used; without them the request rate decides.
    """

    path: Path
    chunk_hash_size: int = 16
    sec_multiplier: float = 1.0
    len_multiplier: float = 1.0
    labels: dict[str, str] = field(default_factory=dict)
    has_times: bool = True

    def __post_init__(self) -> None:
        if self.chunk_hash_size < 1:
            raise ConfigError(f"chunk_hash_size={self.chunk_hash_size} is not allowed; it must be at least 1")
        for name in ("sec_multiplier", "len_multiplier"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name}={value} is not allowed; it must be above 0")

    def requests(self, num_prompts: int, seed: int, tokenizer: Tokenizer | None) -> list[ServeRequest]:
        """The first num_prompts rows. Raises: ConfigError naming the row that cannot be used."""
        words = needed(tokenizer, "timed_trace")
        blocks = _Blocks(words, seed, self.chunk_hash_size)
        return [
            ServeRequest(blocks.prompt(idx, row), row.input_len, row.output_len, row.time_s if self.has_times else None)
            for idx, row in enumerate(self.rows(num_prompts))
        ]

    def rows(self, num_rows: int) -> list[TraceRow]:
        """The first rows of the file, scaled; times count from the first."""
        reader = self._azure() if self.path.suffix == ".csv" else self._json()
        try:
            rows = list(islice(reader, num_rows))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path} cannot be read: {error}") from None
        if not rows:
            raise ConfigError(f"{self.path} holds no request")
        start_s = min(row.time_s for row in rows)
        return [TraceRow(row.time_s - start_s, row.input_len, row.output_len, row.hash_ids) for row in rows]

    def _json(self) -> Iterator[TraceRow]:
        names = {name: self.labels.get(name, name) for name in ("timestamp", "input_length", "output_length")}
        hash_name = self.labels.get("hash_ids", "hash_ids")
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{self.path}, line {number}"
                entry = json_object(where, line)
                time, num_input, num_output = (self._number(where, entry, label) for label in names.values())
                yield self._row(where, time, num_input, num_output, _hash_ids(where, entry.get(hash_name, [])))

    def _azure(self) -> Iterator[TraceRow]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _AZURE_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"{self.path} has no column {missing[0]}; Azure's traces have {_AZURE_COLUMNS}")
            for entry in reader:
                where = f"{self.path}, line {reader.line_num}"
                num_input, num_output = (self._number(where, entry, label) for label in _AZURE_COLUMNS[1:])
                yield self._row(where, _seconds(where, entry["TIMESTAMP"]), num_input, num_output)

    def _row(
        self, where: str, time: float, num_input: float, num_output: float, hash_ids: tuple[int, ...] = ()
    ) -> TraceRow:
        input_len, output_len = (max(1, math.ceil(n * self.len_multiplier)) for n in (num_input, num_output))
        if hash_ids and len(hash_ids) * self.chunk_hash_size < input_len:
            raise ConfigError(
                f"{where}: {len(hash_ids)} hash ids of {self.chunk_hash_size} tokens are fewer than the prompt's "
                f"{input_len}; give --timed-trace-chunk-hash-size {math.ceil(input_len / len(hash_ids))} or more (512 "
                "for Mooncake's traces), or make lengths smaller with --timed-trace-len-multiplier"
            )
        return TraceRow(time * self.sec_multiplier, input_len, output_len, hash_ids)

    def _number(self, where: str, entry: dict[str, Any], label: str) -> float:
        if entry.get(label) is None:
            raise ConfigError(
                f"{where}: has no {label!r}; it has {', '.join(map(str, entry))}. --timed-trace-label-... names the "
                "fields"
            )
        try:
            value = float(entry[label])
        except (TypeError, ValueError):
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{where}: {label} is {entry[label]!r}, no number of at least 0")
        return value


class _Blocks:
    """Tokens for hash ids: the same id, the same tokens. A part of a block is its beginning."""

    def __init__(self, tokenizer: Tokenizer, seed: int, block_len: int) -> None:
        self._seed, self._block_len = seed, block_len
        special = np.array(sorted(tokenizer.special_ids), dtype=int)
        self._allowed = np.setdiff1d(np.arange(tokenizer.vocab_size), special)
        self._known: dict[int, list[int]] = {}

    def prompt(self, idx: int, row: TraceRow) -> list[int]:
        """The prompt of a row; without hash ids it shares nothing with any other."""
        if not row.hash_ids:
            return self._draw([self._seed, 0, idx], row.input_len)
        found: list[int] = []
        for hash_id in row.hash_ids:
            if hash_id not in self._known:
                self._known[hash_id] = self._draw([self._seed, 1, hash_id], self._block_len)
            found += self._known[hash_id]
        return found[: row.input_len]

    def _draw(self, seed: list[int], num_tokens: int) -> list[int]:
        found: list[int] = np.random.default_rng(seed).choice(self._allowed, num_tokens).tolist()
        return found


def _hash_ids(where: str, found: Any) -> tuple[int, ...]:
    if not isinstance(found, list) or not all(isinstance(each, int) and each >= 0 for each in found):
        raise ConfigError(f"{where}: the hash ids are {found!r:.80}, no list of whole numbers of at least 0")
    return tuple(found)


def _seconds(where: str, text: str | None) -> float:
    """A time of Azure's, which has seven decimals."""
    try:
        return datetime.fromisoformat((text or "")[:26]).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ConfigError(f"{where}: TIMESTAMP is {text!r}, no time") from None
