"""Matrices in few bits for tests: random codes, device matrices of them, and the numbers those stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.encoded_matrix import empty_matrix, fill_rows, on_device
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.upload import Upload
from albireo.encodings import Encoding, encoding
from albireo.quantization.encoded import E2M1_VALUES, Encoded, e4m3_values, gamma_values
from backends.cpu import encoded_linears

F32 = NDArray[np.float32]
CPU = torch.device("cpu")


def random_encoded(e: Encoding, n: int, k: int, seed: int) -> Encoded:
    """As tests of the native core have them, without a row of zeros."""
    return encoded_linears.random_encoded(e, n, k, seed, has_zeros=False)


def symmetric(encoded: Encoded) -> Encoded:
    """The same with the zero points of int8 in the middle, where its kernels want them."""
    if encoded.encoding.bits < 8 or encoded.zero is None:
        return encoded
    return Encoded(encoded.encoding, encoded.codes, encoded.scale, np.full_like(encoded.zero, 128))


def device_matrix(encoded: Encoded) -> DeviceMatrix:
    n, k = encoded.shape
    matrix = empty_matrix(encoded.encoding.name, n, k, CPU)
    fill_rows(matrix, on_device(encoded, Upload(CPU, 0)), 0)
    return matrix


def decoded(matrix: DeviceMatrix) -> F32:
    """[N, K] what a device matrix stands for, from its documented fields alone."""
    e, k = encoding(matrix.dtype), matrix.cols
    assert matrix.scale is not None
    if e.is_nested:
        return as_encoded(matrix).decode()
    if matrix.codes.dtype == torch.uint8:
        words = matrix.codes.view(torch.int32).reshape(matrix.rows, -1, 1, 32)
        planes = (words >> torch.arange(0, 32, 4)[:, None]) & 15
        codes = planes.reshape(matrix.rows, -1)[:, :k].float().numpy()
    elif matrix.codes.dtype == torch.int8:
        codes = matrix.codes.float().numpy()
    else:
        planes = matrix.codes.view(torch.uint8).reshape(matrix.rows, -1, 32, 4).transpose(2, 3)
        codes = e4m3_values()[planes.reshape(matrix.rows, -1)[:, :k].numpy()]

    def spread(part: torch.Tensor, dtype: Any = np.float32) -> Any:
        of_groups = part.numpy().T.astype(dtype)
        return of_groups if of_groups.shape[1] == 1 or e.group is None else np.repeat(of_groups, e.group, axis=1)[:, :k]

    if e.kind == "microscaled":
        codes = E2M1_VALUES[codes.astype(np.uint8)] * gamma_values(e)[spread(matrix.gamma, np.uint8)]
    elif matrix.gamma is not None:
        codes = (codes - spread(matrix.zero)) * spread(matrix.gamma)
    elif matrix.zero is not None:
        codes = codes - spread(matrix.zero)
    numbers = codes * spread(matrix.scale)
    return np.asarray(numbers if matrix.offset is None else numbers + spread(matrix.offset), np.float32)


def as_encoded(matrix: DeviceMatrix) -> Encoded:
    """A nested matrix as it was before it came to a device, from its documented fields alone."""
    e, k = encoding(matrix.dtype), matrix.cols
    nests = matrix.codes.numpy().reshape(matrix.rows, -1, 32 * e.bits)
    low = {2: 2, 3: 2, 4: 4, 5: 4, 6: 4}[e.bits]

    def planes(data: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
        elements = np.ascontiguousarray(data).view({1: "u1", 2: "<u2", 4: "<u4"}[bits]).astype(np.uint32)
        return elements[:, :, None, :] >> (np.arange(8, dtype=np.uint32) * bits)[:, None] & np.uint32((1 << bits) - 1)

    codes = planes(nests[:, :, : 32 * low], low)
    if e.bits > low:
        codes = codes | planes(nests[:, :, 32 * low :], e.bits - low) << np.uint32(low)

    def numbers(part: torch.Tensor | None, kind: Any) -> Any:
        return None if part is None else np.ascontiguousarray(part.numpy().T.astype(kind))

    def of_groups(part: torch.Tensor | None) -> Any:
        if part is None:
            return None
        unsigned = part.numpy().astype(np.int16) + (0 if part.dtype == torch.uint8 else 128)
        each = unsigned.astype(np.uint8).transpose(1, 0, 2).reshape(matrix.rows, -1)
        return np.ascontiguousarray(each[:, : e.num_groups(k)])

    return Encoded(
        e,
        np.ascontiguousarray(codes.reshape(matrix.rows, -1)[:, :k].astype(np.uint8)),
        numbers(matrix.scale, np.float32),
        of_groups(matrix.zero),
        of_groups(matrix.gamma),
        numbers(matrix.offset, np.float32),
    )
