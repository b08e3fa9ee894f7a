"""Encoded -> DeviceMatrix: codes and scales of a matrix in few bits, brought into the order that kernels read.

Called by constants.py, and by tests of kernels. The sizes are those of compiler.layouts.packed_bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix, high_bits, low_bits
from albireo.backends.cuda.rounding import EncodedRows
from albireo.backends.cuda.upload import Upload
from albireo.encodings import NEST, Encoding, encoding, is_encoding
from albireo.quantization.encoded import Encoded


def empty_matrix(dtype: str, rows: int, cols: int, device: torch.device) -> DeviceMatrix:
    """A matrix of zeros of a compute dtype or of an encoding."""

    def zeros(shape: tuple[int, int], kind: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=kind, device=device)

    if not is_encoding(dtype):
        return DeviceMatrix(dtype, rows, cols, zeros((rows, cols), TORCH_DTYPES[dtype]))
    e = encoding(dtype)
    if e.is_nested:
        return _empty_nests(e, rows, cols, device)
    if e.bits == 4:
        codes = zeros((rows, -(-cols // (8 * PLANE)) * 4 * PLANE), torch.uint8)
    elif e.kind == "float":
        codes = zeros((rows, -(-cols // (4 * PLANE)) * 4 * PLANE), torch.float8_e4m3fn)
    else:
        codes = zeros((rows, cols), torch.int8)
    groups, has_gamma = e.num_groups(cols), e.kind in ("progressive", "microscaled")
    return DeviceMatrix(
        dtype,
        rows,
        cols,
        codes,
        scale=zeros((1 if has_gamma else groups, rows), torch.float32),
        zero=zeros((groups, rows), torch.uint8) if e.bits == 4 and e.kind in ("integer", "progressive") else None,
        offset=zeros((groups, rows), torch.float32) if e.kind == "affine" else None,
        gamma=zeros((groups, rows), torch.uint8) if has_gamma else None,
    )


def _empty_nests(e: Encoding, rows: int, cols: int, device: torch.device) -> DeviceMatrix:
    nests, has_offset = e.num_nests(cols), e.kind == "nested affine"

    def zeros(shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=kind, device=device)

    bytes_of_groups = nests * NEST // (8 * (e.group or NEST)), rows, 8
    return DeviceMatrix(
        e.name,
        rows,
        cols,
        zeros((rows, nests * PLANE * e.bits), torch.uint8),
        scale=zeros((nests, rows), torch.float16),
        zero=zeros(bytes_of_groups, torch.uint8) if has_offset else None,
        offset=zeros((nests, rows), torch.float16) if has_offset else None,
        gamma=zeros(bytes_of_groups, torch.uint8 if has_offset else torch.int8),
    )


def fitting_encoding(wanted: Encoding, arrays: Iterable[Encoded]) -> Encoding:
    """wanted, or the affine encoding of the same groups where int8 codes without their zero points need nine bits."""
    if wanted.bits != 8 or wanted.kind != "integer" or all(_fits_8_bits(part) for part in arrays):
        return wanted
    return encoding(f"{wanted.name}.affine")


def on_device(part: Encoded, upload: Upload) -> EncodedRows:
    """part's arrays, copied; each must fit in one of upload's buffers."""

    def copied(array: NDArray[Any] | None) -> torch.Tensor | None:
        return None if array is None else upload.to_device(torch.from_numpy(np.ascontiguousarray(array)))

    codes, scale = copied(part.codes), copied(part.scale)
    assert codes is not None and scale is not None
    return EncodedRows(codes, scale, copied(part.zero), copied(part.gamma), copied(part.offset))


def fill_rows(matrix: DeviceMatrix, part: EncodedRows, at: int) -> None:
    """Put rows at .. of a matrix; it has part's encoding, or the affine one that fitting_encoding() gave."""
    rows = slice(at, at + len(part.codes))
    codes, offset, e = part.codes, part.offset, encoding(matrix.dtype)
    if e.is_nested:
        _fill_nests(matrix, part, rows, e)
        return
    if e.bits == 4:
        matrix.codes[rows] = _words(_paired(codes))
    elif e.kind == "float":
        matrix.codes[rows] = _words(codes).view(torch.float8_e4m3fn)
    elif matrix.offset is not None:
        matrix.codes[rows] = _less_128(codes)
        # of zero points exact: a scale has 16 significant bits, the difference 8
        more = 128.0 if part.zero is None else 128.0 - part.zero.float()
        offset = more * part.scale + (0.0 if offset is None else offset)
    elif part.zero is None:
        matrix.codes[rows] = _less_128(codes)
    else:
        zero = part.zero.short()
        spread = zero if zero.shape[1] == 1 else zero.repeat_interleave(e.group or 1, dim=1)[:, : codes.shape[1]]
        matrix.codes[rows] = (codes.short() - spread).to(torch.int8)
    arrays = ((part.scale, matrix.scale), (part.zero, matrix.zero), (offset, matrix.offset), (part.gamma, matrix.gamma))
    for array, target in arrays:
        if target is not None and array is not None:
            target[:, rows] = array.T


def _words(codes: torch.Tensor) -> torch.Tensor:
    """[N, K] bytes -> [N, K rounded up]: words of a byte of each of four planes; see matrix.py."""
    n, k = codes.shape
    planes = torch.nn.functional.pad(codes, (0, -k % (4 * PLANE))).view(n, -1, 4, PLANE)
    return planes.transpose(2, 3).reshape(n, -1)


def _paired(codes: torch.Tensor) -> torch.Tensor:
    """[N, K] of 4 bits each -> bytes of two: of a plane, and of the plane behind it in the high half."""
    n, k = codes.shape
    pairs = torch.nn.functional.pad(codes, (0, -k % (8 * PLANE))).view(n, -1, 2, PLANE)
    return (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(n, -1)


def _fill_nests(matrix: DeviceMatrix, part: EncodedRows, rows: slice, e: Encoding) -> None:
    matrix.codes[rows] = _nests(part.codes, e)
    for numbers, target in ((part.scale, matrix.scale), (part.offset, matrix.offset)):
        if numbers is not None and target is not None:
            target[:, rows] = numbers.T  # float16 numbers
    gamma = part.gamma if part.gamma is None or part.zero is not None else _less_128(part.gamma)
    for of_groups, target in ((gamma, matrix.gamma), (part.zero, matrix.zero)):
        if of_groups is not None and target is not None:
            whole = torch.nn.functional.pad(of_groups, (0, 8 * len(target) - of_groups.shape[1]))
            target[:, rows] = whole.view(len(whole), -1, 8).transpose(0, 1)


def _nests(codes: torch.Tensor, e: Encoding) -> torch.Tensor:
    """[N, K] -> bytes: of each nest the low bits of its codes, then those above; see matrix.py."""
    n, k = codes.shape
    planes = torch.nn.functional.pad(codes, (0, -k % NEST)).view(n, -1, NEST // PLANE, PLANE)
    low = low_bits(e)
    parts = [_elements(planes & ((1 << low) - 1), low)]
    if high_bits(e):
        parts.append(_elements(planes >> low, high_bits(e)))
    return torch.cat(parts, dim=2).reshape(n, -1)


def _elements(planes: torch.Tensor, bits: int) -> torch.Tensor:
    """[N, nests, planes, PLANE] of so many bits each -> [N, nests, PLANE * bits] bytes of elements."""
    n, nests, count, _ = planes.shape
    in_byte = 8 // bits
    by_byte = planes.view(n, nests, count // in_byte, in_byte, PLANE)
    joined = by_byte[:, :, :, 0]
    for i in range(1, in_byte):
        joined = joined | (by_byte[:, :, :, i] << (bits * i))
    return joined.transpose(2, 3).reshape(n, nests, -1)


def _less_128(codes: torch.Tensor) -> torch.Tensor:
    return (codes ^ 128).view(torch.int8)


def _fits_8_bits(part: Encoded) -> bool:
    """Whether int8 codes without their zero points do."""
    if part.zero is None or (part.zero == 128).all():
        return True
    difference = part.codes.astype(np.int16) - part._spread(part.zero.astype(np.float32)).astype(np.int16)
    return bool(difference.min() >= -128 and difference.max() <= 127)
