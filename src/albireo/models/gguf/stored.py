"""What the files of this folder see of a GGUF file, and settings that lie in it as tensors.

Used by architectures.py and what its table names; GgufFile is one. Does not know architectures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from albireo.json_file import Fields
from albireo.models.checkpoint.safetensors_file import RawTensor

#: Divisors of rotary frequencies: a setting in the form of a tensor.
ROPE_FACTORS = "rope_freqs.weight"
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"
FACTORS = (ROPE_FACTORS, SHORT_FACTORS, LONG_FACTORS)
MAX = 2**31 - 1


class Stored(Protocol):
    """Tensors by the names of graphs, as they lie."""

    path: Path
    settings: dict[str, Any]

    @property
    def names(self) -> Iterable[str]: ...
    def __contains__(self, name: object) -> bool: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def tensor(self, name: str) -> RawTensor: ...


def rows_of(file: Stored, ending: str) -> int:
    """Of the first matrix of such a name. Raises: WeightMismatch when there is none."""
    return file.shape(next((name for name in file.names if name.endswith(ending)), ending))[0]


def one_of_layers(fields: Fields, key: str, default: int | None = None) -> int:
    """A number that is the same in each layer that has it; 0 stands for a layer that does not.

    Raises: ModelError for numbers that differ, or none.
    """
    value = fields.raw(key)
    numbers = {number for number in value if number != 0} if isinstance(value, list) else ()
    if len(numbers) == 1:
        return Fields({key: numbers.pop()}, fields.where).integer(key, 1, MAX)
    if value == 0 and default is not None:
        return default
    return fields.integer(key, 1, MAX, default=default)


def first_heads(fields: Fields) -> int:
    """Of queries, of the first layer that attends, where each has its own; 0 where none does."""
    said, key = fields.raw("attention.head_count"), "attention.head_count"
    one = next((each for each in said if each != 0), 0) if isinstance(said, list) else said
    return Fields({key: one}, fields.where).integer(key, 0, MAX)


def width_of_head(fields: Fields) -> int:
    """What a file says, or what there is of the width of the model."""
    if fields.raw("attention.key_length") is not None:
        return fields.integer("attention.key_length", 1, MAX)
    return max(1, fields.integer("embedding_length", 1, MAX) // max(first_heads(fields), 1))


def by_layer(fields: Fields, key: str, layers: int) -> list[int]:
    """The number, or flag, of each of the first layers; one stands for all. Raises: ModelError for anything else."""
    value = fields.raw(key)
    values = value if isinstance(value, list) else [value] * layers
    if len(values) < layers or not all(isinstance(each, int) and 0 <= each <= MAX for each in values):
        fields.fail(key, value, f"must be a whole number, or one for each of {layers} layers")
    return values[:layers]


def numbers_by_layer(fields: Fields, key: str, layers: int) -> list[float]:
    """The number of each layer; one stands for all. Raises: ModelError for anything else."""
    value = fields.raw(key)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    values = value if isinstance(value, list) else [value] * layers
    if len(values) != layers or not all(type(each) in (int, float) and math.isfinite(each) for each in values):
        fields.fail(key, value, f"must be a number, or one for each of {layers} layers")
    return [float(each) for each in values]


def optional_scale(fields: Fields, key: str) -> float | None:
    """None where it is 0, which stands for none."""
    return fields.optional_number(key, 0.0, 1e9) or None


def window_of(fields: Fields) -> int | None:
    return fields.optional_integer("attention.sliding_window", 0, MAX) or None
