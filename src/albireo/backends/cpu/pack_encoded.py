"""Matrices that a checkpoint holds in few bits -> panels, codes and scales unchanged.

Called by pack.py. One constant is held as arrays at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.encodings import encoding
from albireo.errors import WeightMismatch
from albireo.graph.program import PANEL, PackedConstant
from albireo.quantization.encoded import Encoded
from albireo.quantization.nested import held_as, is_held_as

_PARTS = ("codes", "scale", "zero", "gamma", "offset")


class EncodedWeights(Protocol):
    """Where encoded matrices come from; see models.weights.Checkpoint."""

    @property
    def encodings(self) -> Mapping[str, str]: ...
    def encoded(self, name: str) -> Encoded: ...


def pack_encoded(
    pool: _native.ThreadPool, constant: PackedConstant, weights: EncodedWeights, at: int
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Writes a constant to an address; yields (tensors read, bytes written), once.

    Raises: WeightMismatch when it joins matrices of several encodings, or not the one that is wanted.
    """
    assert constant.definition is not None
    name = constant.packing.partition(".")[2]
    sources = constant.definition.sources
    found = {source: weights.encodings.get(source, "numbers") for source in sources}
    if not all(is_held_as(kind, name) for kind in found.values()):
        raise WeightMismatch(f"{constant.name} is wanted as {name}, the checkpoint has {found}")
    columns = constant.definition.columns
    arrays = {source: held_as(weights.encoded(source), name) for source in sources}
    if columns is not None:
        arrays = {source: array.columns(*columns) for source, array in arrays.items()}
    kept: list[Any] = []
    rows = {part: np.zeros(-(-constant.rows // PANEL) * PANEL, np.uint64) for part in _PARTS}
    end = 0
    for segment in constant.definition.segments:
        start, end = end, end + len(segment)
        if segment.source is None:
            continue
        part_rows = arrays[segment.source].rows(segment.start, segment.stop)
        if part_rows.shape[1] != constant.cols or part_rows.encoding != encoding(name):
            raise WeightMismatch(f"{segment.source} is {part_rows.encoding} of {part_rows.shape}, not {name}")
        for part in _PARTS:
            array = getattr(part_rows, part)
            if array is not None:
                array = np.ascontiguousarray(array)
                kept.append(array)
                rows[part][start:end] = _addresses(array)
    codes, scale, zero, gamma, offset = (rows[part] for part in _PARTS)
    _native.pack_encoded(pool, codes, scale, zero, gamma, offset, constant.cols, name, at)
    yield sources, constant.num_bytes


def _addresses(array: NDArray[Any]) -> NDArray[np.uint64]:
    """Of each row."""
    return np.arange(len(array), dtype=np.uint64) * np.uint64(array.strides[0]) + np.uint64(array.ctypes.data)
