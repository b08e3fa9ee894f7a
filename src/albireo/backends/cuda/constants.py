"""Checkpoint -> constants in device memory: matrices as kernels read them, vectors in float32, rotation tables.

Called by open.py. A constant is filled slice by slice through two pinned buffers, so that a model is never in host
memory; a matrix that lies encoded is held as arrays, one at a time. Does not know programs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from albireo.backends.cuda.encoded_matrix import empty_matrix, fill_rows, fitting_encoding, on_device
from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.rounding import EncodedRows, can_round, round_rows
from albireo.backends.cuda.upload import Upload
from albireo.backends.rope_table import rope_table
from albireo.backends.vectors import vector_of
from albireo.backends.weights import Tensor, Weights
from albireo.dtypes import itemsize
from albireo.encodings import Encoding, encoding, is_encoding
from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.node import ConstantDef
from albireo.graph.program import PackedConstant
from albireo.quantization.encoded import Encoded
from albireo.quantization.nested import held_as, is_held_as
from albireo.quantization.rounding import round_weights

#: Rows go to the device, and their file pages are let go, in slices of about this many bytes.
SLICE_BYTES = 32 << 20


def place_constants(
    constants: Mapping[str, PackedConstant],
    weights: Weights,
    device: torch.device,
    progress: Callable[[int], None],
    slice_bytes: int = SLICE_BYTES,
) -> tuple[dict[str, DeviceMatrix], dict[str, torch.Tensor]]:
    """Matrices, and vectors: those of one row, [n] float32, and rotation tables as rope_constant() has them; by name.

    progress is called with the bytes just finished.
    Raises: WeightMismatch when a constant joins matrices of several encodings, or not the one that is wanted.
    """
    upload = Upload(device, slice_bytes)
    matrices: dict[str, DeviceMatrix] = {}
    vectors: dict[str, torch.Tensor] = {}
    for name, constant in constants.items():
        if constant.rope is not None:
            vectors[name] = rope_constant(constant, device)
            progress(constant.num_bytes)
            continue
        definition = constant.definition
        if definition is None:
            raise InvariantError(f"{name} has neither rows nor frequencies")
        if constant.rows == 1 and definition.num_rows == constant.cols:
            vectors[name] = torch.from_numpy(vector_of(definition, weights)).to(device)
            progress(constant.num_bytes)
        else:
            matrices[name] = _matrix(constant, definition, weights, upload, progress)
        for source in definition.sources:
            weights.release(source)
    return matrices, vectors


def rope_constant(constant: PackedConstant, device: torch.device) -> torch.Tensor:
    """[positions, 2, D/2] float32: of each position the cosines, then the sines."""
    if constant.rope is None:
        raise InvariantError(f"{constant.name} is no rotation table")
    table = rope_table(constant.rope, np.arange(constant.rows, dtype=np.int32))
    return torch.from_numpy(np.ascontiguousarray(table.transpose(0, 2, 1))).to(device)


def _matrix(
    constant: PackedConstant,
    definition: ConstantDef,
    weights: Weights,
    upload: Upload,
    progress: Callable[[int], None],
) -> DeviceMatrix:
    kind, _, dtype = constant.packing.partition(".")
    if kind != "row":
        raise InvariantError(f"{constant.name} is wanted as {constant.packing}; a GPU reads row.<type>")
    encoded: dict[str, Encoded] = {}
    wanted = encoding(dtype) if is_encoding(dtype) else None
    if wanted is not None and any(source in weights.encodings for source in definition.sources):
        encoded = _encoded_sources(constant, definition, weights, wanted)
        wanted = fitting_encoding(wanted, encoded.values())
        dtype = wanted.name
    matrix = empty_matrix(dtype, constant.rows, constant.cols, upload.device)
    row_bytes = constant.cols * (4 if wanted is not None else itemsize(dtype))
    tensors = {} if encoded else {source: weights.tensor(source) for source in definition.sources}
    for source, start, stop, at in _pieces(definition, max(1, upload.num_bytes // row_bytes)):
        if source is not None and wanted is not None:
            if encoded:
                part = on_device(encoded[source].rows(start, stop), upload)
            else:
                part = _rounded(_rows(tensors[source], start, stop, definition), wanted, upload)
            fill_rows(matrix, part, at)
        elif source is not None:
            upload.copy(_rows(tensors[source], start, stop, definition), matrix.codes[at : at + stop - start])
        progress(constant.num_bytes * (at + stop - start) // constant.rows - constant.num_bytes * at // constant.rows)
    return matrix


def _rounded(rows: torch.Tensor, e: Encoding, upload: Upload) -> EncodedRows:
    if can_round(e):
        return round_rows(upload.to_device(rows).to(torch.float32), e)
    return on_device(round_weights(rows.to(torch.float32).numpy(), e), upload)


def _encoded_sources(
    constant: PackedConstant, definition: ConstantDef, weights: Weights, wanted: Encoding
) -> dict[str, Encoded]:
    found = {source: weights.encodings.get(source, "numbers") for source in definition.sources}
    if not all(is_held_as(kind, wanted.name) for kind in found.values()):
        raise WeightMismatch(f"{constant.name} is wanted as {wanted}, the checkpoint has {found}")
    arrays = {source: held_as(weights.encoded(source), wanted.name) for source in definition.sources}
    if definition.columns is not None:
        arrays = {source: array.columns(*definition.columns) for source, array in arrays.items()}
    for source, array in arrays.items():
        if array.shape[1] != constant.cols or array.encoding != wanted:
            raise WeightMismatch(
                f"{source} is {array.encoding} of {array.shape}, not {wanted} of {constant.cols} columns"
            )
    return arrays


def _pieces(definition: ConstantDef, most_rows: int) -> Iterator[tuple[str | None, int, int, int]]:
    """(source, first and end of its rows, first row of the constant), of at most so many rows; None: rows of zeros."""
    at = 0
    for segment in definition.segments:
        for start in range(segment.start, segment.stop, most_rows):
            stop = min(start + most_rows, segment.stop)
            yield segment.source, start, stop, at
            at += stop - start


def _rows(tensor: Tensor, start: int, stop: int, definition: ConstantDef) -> torch.Tensor:
    """Rows where they lie, of the columns that the definition takes."""
    size, cols = itemsize(tensor.dtype), tensor.shape[1]
    address = tensor.address + start * cols * size
    raw = torch.frombuffer((ctypes.c_uint8 * ((stop - start) * cols * size)).from_address(address), dtype=torch.uint8)
    if address % size:  # in a file nothing aligns an element
        raw = raw.clone()
    rows = raw.view(TORCH_DTYPES[tensor.dtype]).reshape(stop - start, cols)
    return rows if definition.columns is None else rows[:, definition.columns[0] : definition.columns[1]]
