"""Checkpoint -> packed constants in one arena, at memory speed and with little beside it.

Called by model.py. Rows are read where the checkpoint maps them and written once, in their final place; pages of the
file are let go in slices, so a model is never in memory twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cpu.pack_encoded import SLICE_BYTES, pack_encoded
from albireo.backends.rope_table import rope_table
from albireo.backends.vectors import vector_of
from albireo.backends.weights import Weights
from albireo.encodings import is_encoding
from albireo.errors import InvariantError, WeightMismatch, short
from albireo.graph.node import ConstantDef, RowSegment
from albireo.graph.program import PANEL, PackedConstant

ALIGN = 4096
_VECTOR = "row.float32"
#: Matrices that a layer joins in one constant, at most: query, key and value. Others are of experts.
_MOST_SOURCES = 3


def constant_offsets(constants: Mapping[str, PackedConstant]) -> tuple[dict[str, int], int]:
    """name -> offset in one arena, and the arena's size in bytes. Vectors are padded to whole panels."""
    offsets, end = {}, 0
    for name, constant in constants.items():
        offsets[name] = end
        end += padded_bytes(constant.num_bytes)
    return offsets, end


def padded_bytes(num_bytes: int) -> int:
    """Room for a constant: a panel of float32 more, in whole pages."""
    return -(-(num_bytes + PANEL * 4) // ALIGN) * ALIGN


def pack_constants(
    pool: _native.ThreadPool,
    constants: Mapping[str, PackedConstant],
    weights: Weights,
    memory: _native.Memory,
    offsets: Mapping[str, int],
    progress: Callable[[int], None],
) -> None:
    """Fill memory. progress is called with the bytes just finished.

    Raises: WeightMismatch when a constant joins tensors of different types, or what is to be rounded is not finite.
    """
    for name, constant in constants.items():
        at = memory.address + offsets[name]
        if constant.rope is not None:
            write_rope_table(constant, memory, offsets[name])
        elif constant.rows == 1 and constant.packing == _VECTOR:
            assert constant.definition is not None
            _write(memory, offsets[name], vector_of(constant.definition, weights))
        else:
            for part, offset in _parts(constant):
                for source, target in _pack_matrix(pool, part, weights, at + offset):
                    progress(target)
                    for tensor in source:
                        weights.release(tensor)
            continue
        progress(constant.num_bytes)


def pack_rows(pool: _native.ThreadPool, part: PackedConstant, weights: Weights, at: int) -> None:
    """Whole panels of a matrix, as pack_constants() packs them, to an address."""
    for _ in _pack_matrix(pool, part, weights, at):
        pass


def write_rope_table(constant: PackedConstant, memory: _native.Memory, offset: int) -> None:
    """Compute a rotation table where it belongs; of each position the cosines, then the sines."""
    assert constant.rope is not None
    table = rope_table(constant.rope, np.arange(constant.rows, dtype=np.int32))
    _write(memory, offset, np.ascontiguousarray(table.transpose(0, 2, 1)))


def _write(memory: _native.Memory, offset: int, values: NDArray[np.float32]) -> None:
    memory.view()[offset : offset + values.nbytes] = values.reshape(-1).view(np.uint8)


def _parts(constant: PackedConstant) -> Iterator[tuple[PackedConstant, int]]:
    """A constant of many matrices, such as those of experts, as constants of few, each with its offset in bytes.

    Whole panels are packed by themselves; and matrices that must be decoded are held a few at a time.
    """
    definition = constant.definition
    assert definition is not None
    if len(definition.sources) <= _MOST_SOURCES or not constant.packing.startswith("p64"):
        yield constant, 0
        return
    panel_bytes = constant.num_bytes // -(-constant.rows // PANEL)
    offset = 0
    for rows, segments in _panel_runs(definition.segments):
        size = -(-rows // PANEL) * panel_bytes
        part = ConstantDef(segments, definition.columns)
        yield replace(constant, rows=rows, num_bytes=size, definition=part), offset
        offset += size


def _panel_runs(segments: Sequence[RowSegment]) -> Iterator[tuple[int, tuple[RowSegment, ...]]]:
    """Rows of whole panels that share no matrix with those before them: how many, and their segments."""
    run: list[RowSegment] = []
    rows, sources = 0, set[str | None]((None,))
    for segment in segments:
        if rows and rows % PANEL == 0 and segment.source not in sources:
            yield rows, tuple(run)
            run, rows, sources = [], 0, {None}
        run.append(segment)
        rows += len(segment)
        sources.add(segment.source)
    yield rows, tuple(run)


def _pack_matrix(
    pool: _native.ThreadPool, constant: PackedConstant, weights: Weights, at: int
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Packs slice by slice; yields (tensors read so far, bytes just written)."""
    assert constant.definition is not None
    kind, _, target = constant.packing.partition(".")
    sources = constant.definition.sources
    if is_encoding(target) and any(source in weights.encodings for source in sources):
        yield from pack_encoded(pool, constant, weights, at)
        return
    source_dtype = _common_dtype(constant.name, sources, weights)
    is_panels, wide = kind == "p64", "avx512" in isa_levels()
    rows = _row_addresses(constant, weights, PANEL if is_panels else 1)
    unit = PANEL if is_panels else 1
    unit_bytes = constant.num_bytes // (len(rows) // unit)
    per_slice = max(1, SLICE_BYTES // unit_bytes)
    for start in range(0, len(rows) // unit, per_slice):
        part = rows[start * unit : (start + per_slice) * unit]
        to = at + start * unit_bytes
        if is_encoding(target):
            odd = _native.pack_rounded(pool, part, constant.cols, source_dtype, target, to)
            if odd >= 0:
                raise _not_finite(constant, start * unit + odd)
        else:
            _native.pack(pool, part, constant.cols, source_dtype, target, to, is_panels, wide)
        yield sources, len(part) // unit * unit_bytes


def _not_finite(constant: PackedConstant, row: int) -> WeightMismatch:
    """Args: row: of the constant. In few bits such a number would become some other."""
    assert constant.definition is not None
    end = 0
    for segment in constant.definition.segments:
        start, end = end, end + len(segment)
        if row < end and segment.source is not None:
            place = segment.start + row - start
            return WeightMismatch(
                f"tensor {short(segment.source)} holds a number that is not finite in row {place}; it cannot be "
                f"rounded to {constant.packing.partition('.')[2]}: the checkpoint is damaged, download it again"
            )
    raise InvariantError(f"{constant.name} has no row {row}")


def _common_dtype(name: str, sources: tuple[str, ...], weights: Weights) -> str:
    dtypes = {source: weights.tensor(source).dtype for source in sources}
    if len(set(dtypes.values())) > 1:
        raise WeightMismatch(f"{name} joins tensors of different types: {dtypes}; store them in one type")
    return next(iter(dtypes.values()))


def _row_addresses(constant: PackedConstant, weights: Weights, unit: int) -> NDArray[np.uint64]:
    """Address of each row, 0 for a row of zeros; padded to whole units."""
    assert constant.definition is not None
    rows = np.zeros(-(-constant.rows // unit) * unit, np.uint64)
    end = 0
    for segment in constant.definition.segments:
        start, end = end, end + len(segment)
        if segment.source is not None:
            tensor = weights.tensor(segment.source)
            size = 4 if tensor.dtype == "float32" else 2
            # of a rank's part, some columns of each row: the rows of the checkpoint are longer
            row_bytes, skipped = constant.cols * size, 0
            if constant.definition.columns is not None:
                row_bytes, skipped = tensor.shape[1] * size, constant.definition.columns[0] * size
            first = tensor.address + segment.start * row_bytes + skipped
            rows[start:end] = np.arange(len(segment), dtype=np.uint64) * np.uint64(row_bytes) + np.uint64(first)
    return rows
