"""Constants of a program for a GPU in a file: from a checkpoint into the file's bytes, and from the file to the device.

Called by api/build.py and open.py. Of a matrix the arrays of a DeviceMatrix follow each other without gaps: codes,
scale, zero, offset, gamma, as many as its encoding has; vectors and rotation tables are float32. Does not know
directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.constants import place_constants, rope_constant
from albireo.backends.cuda.encoded_matrix import empty_matrix
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.upload import Upload
from albireo.backends.stored_weights import RowsOf, StoredWeights
from albireo.backends.weights import Weights
from albireo.errors import Corrupt, UnsupportedModel
from albireo.graph.program import PackedConstant

_CHUNK_BYTES = 32 << 20


def write_constants(
    constants: Mapping[str, PackedConstant],
    offsets: Mapping[str, int],
    weights: Weights,
    image: NDArray[np.uint8],
    progress: Callable[[int], None],
) -> None:
    """Fill image, each constant at its offset. progress is called with the bytes just finished.

    Raises: UnsupportedModel for a matrix that a GPU holds in another encoding than the checkpoint.
    """
    host = torch.device("cpu")
    for name, constant in constants.items():
        matrices, vectors = place_constants({name: constant}, weights, host, progress)
        if name in matrices and matrices[name].dtype != constant.packing.partition(".")[2]:
            raise UnsupportedModel(
                f"{name} is held as {matrices[name].dtype} on a GPU, for which a directory has no place; run the "
                "checkpoint itself"
            )
        parts = list(_arrays(matrices[name])) if name in matrices else [vectors[name]]
        data = np.concatenate([_bytes(part).numpy() for part in parts])
        image[offsets[name] : offsets[name] + len(data)] = data


def read_constants(
    constants: Mapping[str, PackedConstant],
    stored: StoredWeights,
    device: torch.device,
    progress: Callable[[int], None],
) -> tuple[dict[str, DeviceMatrix], dict[str, torch.Tensor]]:
    """As place_constants() does from a checkpoint; also of rows of what is stored.

    Raises: Corrupt when the file ends too early.
    """
    upload = Upload(device, _CHUNK_BYTES)
    matrices: dict[str, DeviceMatrix] = {}
    vectors: dict[str, torch.Tensor] = {}
    with open(stored.path, "rb") as file:
        for name, constant in constants.items():
            if not stored.has(constant):
                vectors[name] = rope_constant(constant, device)
                progress(constant.num_bytes)
                continue
            if name in stored.offsets:
                file.seek(stored.offsets[name])
            if constant.packing == "row.float32" and constant.rows == 1:
                vectors[name] = torch.zeros(constant.cols, dtype=torch.float32, device=device)
                targets = [vectors[name]]
            elif constant.rope is not None:
                vectors[name] = torch.zeros(constant.rows, 2, constant.cols // 2, dtype=torch.float32, device=device)
                targets = [vectors[name]]
            else:
                dtype = constant.packing.partition(".")[2]
                matrices[name] = empty_matrix(dtype, constant.rows, constant.cols, device)
                if name in stored.parts:
                    _read_rows(file, matrices[name], stored, stored.parts[name], upload)
                    progress(constant.num_bytes)
                    continue
                targets = list(_arrays(matrices[name]))
            for target in targets:
                to = _bytes(target)
                for start in range(0, len(to), _CHUNK_BYTES):
                    part = to[start : start + _CHUNK_BYTES]
                    upload.copy(_read(file.read(len(part)), len(part), stored), part)
            progress(constant.num_bytes)
    return matrices, vectors


def _read_rows(file: BinaryIO, matrix: DeviceMatrix, stored: StoredWeights, place: RowsOf, upload: Upload) -> None:
    """Rows of a matrix that is stored as the first, or the last, of another's."""
    height, begin = stored.constants[place.name].rows, stored.offsets[place.name]
    for array in _arrays(matrix):
        # codes lie row by row, all else in lines that have a number, or some bytes, of each row
        lines = [array] if array is matrix.codes else list(array)
        for line in lines:
            to = _bytes(line)
            size = len(to) // matrix.rows
            for start in range(0, len(to), _CHUNK_BYTES):
                part = to[start : start + _CHUNK_BYTES]
                file.seek(begin + place.first * size + start)
                upload.copy(_read(file.read(len(part)), len(part), stored), part)
            begin += height * size


def _arrays(matrix: DeviceMatrix) -> Iterator[torch.Tensor]:
    for array in (matrix.codes, matrix.scale, matrix.zero, matrix.offset, matrix.gamma):
        if array is not None:
            yield array


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _read(data: bytes, wanted: int, stored: StoredWeights) -> torch.Tensor:
    if len(data) != wanted:
        raise Corrupt(f"{stored.path} ends {wanted - len(data)} bytes early; it was truncated while it was read")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
