"""A constant of a graph, read from the checkpoint and widened a few rows at a time.

Called by walk.py. The reference never holds a matrix of a large vocabulary as float32. Does not know packings.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from albireo.backends.cpu.kv_view import widen
from albireo.backends.reference.rounding import F32, round_matrix
from albireo.backends.vectors import altered
from albireo.encodings import is_encoding
from albireo.errors import InvariantError
from albireo.graph.node import RowSegment, Value
from albireo.models.checkpoint.weights import Checkpoint

#: A constant of no more bytes as float32 is widened once: each call is evaluated for its own bounds, and twice more for
#: what it carries on.
KEPT_BYTES = 32 << 20


class WeightRows:
    """Rows of a constant as float32 numbers that its type can hold; what the reference ops need of an array.

    Fields: shape: of the whole.
    """

    def __init__(self, value: Value, checkpoint: Checkpoint) -> None:
        if value.constant is None:
            raise InvariantError(f"{value} is not a constant")
        self.shape = tuple(int(dim) for dim in value.type.dims)
        self._dtype = value.type.dtype
        self._definition = value.constant
        columns = value.constant.columns
        self._columns = slice(None) if columns is None else slice(*columns)
        self._checkpoint = checkpoint
        self._is_small = 4 * math.prod(self.shape) <= KEPT_BYTES
        self._widened: dict[tuple[int, int], F32] = {}
        self._kept_name, self._kept = "", np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int32]) -> F32:
        """Rows start to stop, or each row that an array names."""
        if not isinstance(rows, slice):
            return np.concatenate([self[row : row + 1] for row in rows.tolist()])
        start, stop, _ = rows.indices(len(self))
        if (start, stop) in self._widened:
            return self._widened[start, stop]
        found = self._between(start, stop)
        if self._is_small:
            found.flags.writeable = False
            self._widened[start, stop] = found
        return found

    def _between(self, start: int, stop: int) -> F32:
        parts, end = [], 0
        for segment in self._definition.segments:
            first, end = end, end + len(segment)
            low, high = max(start, first), min(stop, end)
            if low < high:
                parts.append(self._read(segment, segment.start + low - first, segment.start + high - first))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self, segment: RowSegment, start: int, stop: int) -> F32:
        tail = self.shape[1:]
        if segment.source is None:
            return np.zeros((stop - start, *tail), np.float32)
        if segment.source in self._checkpoint.encodings:
            numbers = self._decoded(segment.source)[start:stop, self._columns]
            return numbers if is_encoding(self._dtype) else round_matrix(numbers, self._dtype)
        tensor = self._checkpoint.tensor(segment.source)
        stored = np.frombuffer(tensor.buffer, np.uint8).reshape(tensor.shape[0], -1)[start:stop]
        values = widen(stored.reshape(-1), tensor.dtype).reshape(stop - start, *tensor.shape[1:])
        values = values[:, self._columns] if len(tail) == 1 else altered(values, self._definition)
        return values if tensor.dtype == self._dtype else round_matrix(values, self._dtype)

    def _decoded(self, source: str) -> F32:
        """A matrix that is stored in few bits; the last one is kept, since rows are asked for one after another."""
        if source != self._kept_name:
            self._kept_name, self._kept = source, self._checkpoint.encoded(source).decode()
        return self._kept
