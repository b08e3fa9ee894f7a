"""Weights of the checkpoint that is quantized, as the graph declares them, checked to be numbers.

Called by run.py and sensitivity.py. Reads where the file lies; what is returned is the caller's to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.interpret import constant_array
from albireo.backends.reference.rounding import round_to
from albireo.errors import WeightMismatch
from albireo.graph.node import Graph, Value
from albireo.models.checkpoint.weights import Checkpoint
from albireo.quantization.encoded import F32

#: As the bytes of a file lie.
_KINDS = {"bfloat16": "<u2", "float16": "<f2", "float32": "<f4"}
#: Numbers that are looked at together where a tensor is only checked.
_SLICE = 1 << 20


class Source(Mapping[str, F32]):
    """Tensors by name, as float32.

    Raises: WeightMismatch naming the tensor and the place of the first number that is not finite.
    """

    def __init__(self, checkpoint: Checkpoint, graph: Graph) -> None:
        self.checkpoint = checkpoint
        self._tables = {node.inputs["table"] for node in graph.nodes if node.op == "embed"}

    def __getitem__(self, name: str) -> F32:
        array = self.checkpoint.tensor(name).to_float32()
        self._check_finite(name, array, 0)
        return array

    def check(self, name: str) -> None:
        """A tensor that is copied as it is, of which no more than a slice is float32 at one time."""
        tensor = self.checkpoint.tensor(name)
        rows = np.frombuffer(tensor.buffer, _KINDS[tensor.dtype]).reshape(tensor.shape)
        step = max(1, _SLICE // max(1, math.prod(tensor.shape[1:])))
        for start in range(0, len(rows) if rows.ndim else 0, step):
            self._check_finite(name, _numbers(rows[start : start + step], tensor.dtype), start)

    def _check_finite(self, name: str, array: F32, first_row: int) -> None:
        if not np.isfinite(array).all():
            where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            value = array[tuple(where)]
            where[:1] = [first_row + at for at in where[:1]]
            raise WeightMismatch(
                f"{self.checkpoint.directory}: tensor {name} is {value} at {where}; "
                "such a checkpoint is damaged and is not quantized"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoint.names)

    def __len__(self) -> int:
        return len(self.checkpoint.names)

    def constant(self, value: Value) -> F32:
        """A constant of the graph, in the numbers of its type."""
        return constant_array(value, self)

    def constants(self, values: tuple[Value, ...], whole: bool) -> dict[Value, Any]:
        """Constants by value. whole: the embedding table too; else it is read row by row."""
        return {v: Table(self, v) if v in self._tables and not whole else self.constant(v) for v in values}

    def release(self, values: tuple[Value, ...]) -> None:
        """Let the pages of constants go that a layer is done with."""
        for value in values:
            assert value.constant is not None
            for name in value.constant.sources:
                self.checkpoint.release(name)


class Table:
    """The rows of an embedding table, read when they are asked for."""

    def __init__(self, source: Source, value: Value) -> None:
        assert value.constant is not None
        (name,) = value.constant.sources
        self._tensor = source.checkpoint.tensor(name)
        self._dtype = value.type.dtype

    def __len__(self) -> int:
        return self._tensor.shape[0]

    def __getitem__(self, rows: NDArray[np.int32]) -> F32:
        found = np.frombuffer(self._tensor.buffer, _KINDS[self._tensor.dtype]).reshape(self._tensor.shape)[rows]
        return round_to(_numbers(found, self._tensor.dtype), self._dtype)


def _numbers(stored: NDArray[Any], dtype: str) -> F32:
    """What numbers of a file's type stand for."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)
