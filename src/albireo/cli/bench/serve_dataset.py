"""Flags of serve.py -> the data set they name.

Used by serve.py. Does not read the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albireo.bench.serving.conversations import Custom, ShareGpt
from albireo.bench.serving.request import Dataset
from albireo.bench.serving.synthetic import PrefixRepetition, RandomPrompts
from albireo.bench.serving.trace import TimedTrace
from albireo.errors import ConfigError

#: Data sets whose answers have the length asked for: the server is told to go on after the end of text, as vLLM does.
EXACT_LEN = ("random", "timed_trace")
_FILES = ("sharegpt", "custom", "timed_trace")


def dataset_of(given: Mapping[str, Any]) -> Dataset:
    """The data set. Raises: ConfigError for flags that do not fit it."""
    name, path = given["dataset_name"], given["dataset_path"]
    if name in _FILES and path is None:
        raise ConfigError(f"--dataset-name {name} needs a file; give --dataset-path")
    if name not in _FILES and path is not None:
        raise ConfigError(f"--dataset-name {name} reads no file; leave out --dataset-path, or name {', '.join(_FILES)}")
    if name != "timed_trace" and given["self_timed"] is not None:
        raise ConfigError("--self-timed and --no-self-timed are for --dataset-name timed_trace")
    if name == "timed_trace" and given["backend"] == "openai-chat":
        raise ConfigError("timed_trace sends token ids, which chat does not take; use --backend openai")
    return {
        "random": _random,
        "prefix_repetition": _prefix_repetition,
        "sharegpt": _sharegpt,
        "custom": _custom,
        "timed_trace": _timed_trace,
    }[name](given, path)


def _random(given: Mapping[str, Any], _: Path) -> Dataset:
    return RandomPrompts(
        input_len=_first(given["input_len"], given["random_input_len"]),
        output_len=_first(given["output_len"], given["random_output_len"]),
        range_ratio=given["random_range_ratio"],
        prefix_len=given["random_prefix_len"],
    )


def _prefix_repetition(given: Mapping[str, Any], _: Path) -> Dataset:
    return PrefixRepetition(
        prefix_len=given["prefix_repetition_prefix_len"],
        suffix_len=given["prefix_repetition_suffix_len"],
        num_prefixes=given["prefix_repetition_num_prefixes"],
        output_len=_first(given["output_len"], given["prefix_repetition_output_len"]),
        is_shuffled=not given["disable_shuffle"],
    )


def _sharegpt(given: Mapping[str, Any], path: Path) -> Dataset:
    return ShareGpt(
        path=path,
        output_len=_first(given["output_len"], given["sharegpt_output_len"]),
        is_shuffled=not given["disable_shuffle"],
        oversamples=not given["no_oversample"],
    )


def _custom(given: Mapping[str, Any], path: Path) -> Dataset:
    return Custom(
        path=path,
        output_len=_first(given["output_len"], given["custom_output_len"]),
        # A chat server puts its template round a prompt itself.
        uses_template=given["backend"] == "openai" and not given["skip_chat_template"],
        is_shuffled=not given["disable_shuffle"],
        oversamples=not given["no_oversample"],
    )


def _timed_trace(given: Mapping[str, Any], path: Path) -> Dataset:
    return TimedTrace(
        path=path,
        chunk_hash_size=given["timed_trace_chunk_hash_size"],
        sec_multiplier=given["timed_trace_sec_multiplier"],
        len_multiplier=given["timed_trace_len_multiplier"],
        labels={name: given[f"label_{name}"] for name in ("timestamp", "input_length", "output_length", "hash_ids")},
        has_times=_first(given["self_timed"], True),
    )


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
