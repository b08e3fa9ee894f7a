"""Matrices that a checkpoint holds in few bits -> panels, codes and scales unchanged.

Called by pack.py. Blocks of a GGUF file are packed where they lie, slice by slice; of what is read otherwise one
constant is held as arrays at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.encodings import encoding
from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.program import PANEL, PackedConstant
from albireo.quantization.blocks import Blocks
from albireo.quantization.encoded import Encoded
from albireo.quantization.nested import held_as, is_held_as

#: Rows are packed, and their file pages let go, in slices of about this many bytes.
SLICE_BYTES = 32 << 20
_PARTS = ("codes", "scale", "zero", "gamma", "offset")


class EncodedWeights(Protocol):
    """Where encoded matrices come from; see models.weights.Checkpoint."""

    @property
    def encodings(self) -> Mapping[str, str]: ...
    def encoded(self, name: str) -> Encoded: ...
    def blocks(self, name: str) -> Blocks | None: ...


def pack_encoded(
    pool: _native.ThreadPool, constant: PackedConstant, weights: EncodedWeights, at: int
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Writes a constant to an address; yields (tensors read, bytes written).

    Raises: WeightMismatch when it joins matrices of several encodings, or not the one that is wanted, or a scale is
        not finite.
    """
    assert constant.definition is not None
    name = constant.packing.partition(".")[2]
    sources = constant.definition.sources
    found = {source: weights.encodings.get(source, "numbers") for source in sources}
    if not all(is_held_as(kind, name) for kind in found.values()):
        raise WeightMismatch(f"{constant.name} is wanted as {name}, the checkpoint has {found}")
    columns = constant.definition.columns
    blocks = {source: weights.blocks(source) for source in sources} if columns is None else {}
    whole = {source: each for source, each in blocks.items() if each is not None and _is_packed(each, name)}
    if whole and len(whole) == len(sources):
        yield from _pack_blocks(pool, constant, weights, whole, at)
        return
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


def _is_packed(blocks: Blocks, name: str) -> bool:
    k = blocks.shape[1]
    return all(_native.packs_blocks(int(number), k, name) for number in np.flatnonzero(np.bincount(blocks.types)))


def _pack_blocks(
    pool: _native.ThreadPool, constant: PackedConstant, weights: EncodedWeights, blocks: Mapping[str, Blocks], at: int
) -> Iterator[tuple[tuple[str, ...], int]]:
    assert constant.definition is not None
    sources, name = constant.definition.sources, constant.packing.partition(".")[2]
    num_panels = -(-constant.rows // PANEL)
    rows, types = np.zeros(num_panels * PANEL, np.uint64), np.zeros(num_panels * PANEL, np.uint8)
    owners = np.full(num_panels * PANEL, -1)
    end = 0
    for segment in constant.definition.segments:
        start, end = end, end + len(segment)
        if segment.source is None:
            continue
        matrix = blocks[segment.source]
        if matrix.shape[1] != constant.cols:
            raise WeightMismatch(f"{segment.source} is {matrix.encoding} of {matrix.shape}, not of {constant.cols}")
        rows[start:end] = matrix.rows[segment.start : segment.stop]
        types[start:end] = matrix.types[segment.start : segment.stop]
        owners[start:end] = sources.index(segment.source)
    panel_bytes = constant.num_bytes // num_panels
    per_slice = max(1, SLICE_BYTES // panel_bytes) * PANEL
    for start in range(0, len(rows), per_slice):
        part = rows[start : start + per_slice]
        to = at + start // PANEL * panel_bytes
        odd = _native.pack_blocks(pool, part, types[start : start + per_slice], constant.cols, name, to)
        if odd >= 0:
            source = sources[owners[start + odd]]
            weights.encoded(source)  # says which number it is
            raise InvariantError(f"row {start + odd} of {constant.name}: a scale of {source} is read in two ways")
        yield sources, len(part) // PANEL * panel_bytes


def _addresses(array: NDArray[Any]) -> NDArray[np.uint64]:
    """Of each row."""
    return np.arange(len(array), dtype=np.uint64) * np.uint64(array.strides[0]) + np.uint64(array.ctypes.data)
