"""Encoded -> DeviceMatrix: codes and scales of a matrix in few bits, brought into the order that kernels read.

Called by constants.py, and by tests of kernels. The sizes are those of compiler.layouts.packed_bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix
from albireo.backends.cuda.upload import Upload
from albireo.encodings import Encoding, encoding, is_encoding
from albireo.errors import InvariantError
from albireo.quantization.encoded import Encoded
from albireo.quantization.rounding import round_weights


def empty_matrix(dtype: str, rows: int, cols: int, device: torch.device) -> DeviceMatrix:
    """A matrix of zeros of a compute dtype or of an encoding."""

    def zeros(shape: tuple[int, int], kind: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=kind, device=device)

    if not is_encoding(dtype):
        return DeviceMatrix(dtype, rows, cols, zeros((rows, cols), TORCH_DTYPES[dtype]))
    e = encoding(dtype)
    if e.bits == 4:
        codes = zeros((rows, -(-cols // (8 * PLANE)) * 4 * PLANE), torch.uint8)
    elif e.kind == "float":
        codes = zeros((rows, -(-cols // (4 * PLANE)) * 4 * PLANE), torch.float8_e4m3fn)
    else:
        codes = zeros((rows, cols), torch.int8)
    groups = e.num_groups(cols)
    return DeviceMatrix(
        dtype,
        rows,
        cols,
        codes,
        scale=zeros((1 if e.kind == "progressive" else groups, rows), torch.float32),
        zero=zeros((groups, rows), torch.uint8) if e.bits == 4 and e.kind != "affine" else None,
        offset=zeros((groups, rows), torch.float32) if e.kind == "affine" else None,
        gamma=zeros((groups, rows), torch.uint8) if e.kind == "progressive" else None,
    )


def fitting_encoding(wanted: Encoding, arrays: Iterable[Encoded]) -> Encoding:
    """wanted, or the affine encoding of the same groups where int8 codes without their zero points need nine bits."""
    if wanted.bits != 8 or wanted.kind != "integer" or all(_signed(part) is not None for part in arrays):
        return wanted
    return encoding(f"{wanted.name}.affine")


def rounded(numbers: torch.Tensor, e: Encoding) -> Encoded:
    """float32 numbers [N, K] as round_weights() has them; float8 by torch's cast, much faster than a search."""
    if e.kind != "float":
        return round_weights(numbers.numpy(), e)
    (n, k), count = numbers.shape, e.num_groups(numbers.shape[1])
    groups = torch.zeros(n, count * (e.group or k))
    groups[:, :k] = numbers
    groups = groups.view(n, count, -1)
    scale = groups.abs().amax(dim=2) / 448
    groups /= torch.where(scale > 0, scale, torch.inf)[:, :, None]
    codes = groups.clamp_(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).view(n, -1)[:, :k]
    return Encoded(e, np.ascontiguousarray(codes.numpy()), scale.numpy())


def fill_rows(matrix: DeviceMatrix, part: Encoded, at: int, upload: Upload) -> None:
    """Put rows at .. of a matrix; it has part's encoding, or the affine one that fitting_encoding() gave."""
    end = at + part.shape[0]
    offset = part.offset
    if matrix.codes.dtype == torch.uint8:
        codes = torch.from_numpy(_words(_paired(part.codes)))
    elif matrix.offset is not None:
        codes = torch.from_numpy(_less_128(part.codes))
        # of zero points exact: a scale has 16 significant bits, the difference 8
        more = np.float32(128) if part.zero is None else np.float32(128) - part.zero.astype(np.float32)
        offset = more * part.scale + (np.float32(0) if offset is None else offset)
    elif matrix.codes.dtype == torch.int8:
        signed = _signed(part)
        if signed is None:
            raise InvariantError(f"{part.encoding} has zero points that leave no 8 bits; it was to become affine")
        codes = torch.from_numpy(signed)
    else:
        codes = torch.from_numpy(_words(part.codes)).view(torch.float8_e4m3fn)
    upload.copy(codes, matrix.codes[at:end])
    arrays = ((part.scale, matrix.scale), (part.zero, matrix.zero), (offset, matrix.offset), (part.gamma, matrix.gamma))
    for array, target in arrays:
        if target is not None and array is not None:
            upload.copy(torch.from_numpy(np.ascontiguousarray(array.T)), target[:, at:end])


def _words(codes: np.ndarray) -> np.ndarray:
    """[N, K] bytes -> [N, K rounded up]: words of a byte of each of four planes; see matrix.py."""
    n, k = codes.shape
    planes = np.pad(codes, ((0, 0), (0, -k % (4 * PLANE)))).reshape(n, -1, 4, PLANE)
    return np.ascontiguousarray(planes.swapaxes(2, 3)).reshape(n, -1)


def _paired(codes: np.ndarray) -> np.ndarray:
    """[N, K] of 4 bits each -> bytes of two: of a plane, and of the plane behind it in the high half."""
    n, k = codes.shape
    pairs = np.pad(codes, ((0, 0), (0, -k % (8 * PLANE)))).reshape(n, -1, 2, PLANE)
    return np.ascontiguousarray(pairs[:, :, 0] | (pairs[:, :, 1] << np.uint8(4))).reshape(n, -1)


def _less_128(codes: np.ndarray) -> np.ndarray:
    return (codes ^ np.uint8(128)).view(np.int8)


def _signed(part: Encoded) -> np.ndarray | None:
    """int8 codes without their zero points, where those leave them in 8 bits."""
    if part.zero is None or (part.zero == 128).all():
        return _less_128(part.codes)
    difference = part.codes.astype(np.int16) - part._spread(part.zero.astype(np.float32)).astype(np.int16)
    if difference.min() < -128 or difference.max() > 127:
        return None
    return difference.astype(np.int8)
