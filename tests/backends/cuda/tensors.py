"""Arrays on the way into and out of kernels under test: numpy's float32 for numbers, torch tensors for kernels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.dtypes import TOKEN, natural_stride
from albireo.encodings import is_encoding
from albireo.quantization.encoded import Encoded
from backends.cpu.harness import F32, ROUNDOFF

#: Behind every row, so that writing past its end shows.
FILL = 77.0
ULP = 2.0**-24


def tensor(x: F32, dtype: str = "float32", pad: int = 3) -> torch.Tensor:
    """A copy of x [R, C] in dtype, its rows further apart than they are long."""
    stored = torch.full((x.shape[0], x.shape[1] + pad), FILL).to(TORCH_DTYPES[dtype])
    stored[:, : x.shape[1]] = torch.from_numpy(x).to(TORCH_DTYPES[dtype])
    return stored[:, : x.shape[1]]


def room(rows: int, cols: int, dtype: str = "float32") -> torch.Tensor:
    """An output of a dtype or of token rows, full of what no kernel writes."""
    if dtype == TOKEN:
        return torch.full((rows, natural_stride(TOKEN, cols)), 0x7F, dtype=torch.uint8)
    return tensor(np.full((rows, cols), FILL, np.float32), dtype)


def numbers(x: torch.Tensor) -> F32:
    """What a tensor holds, as float32; behind its rows nothing may have been written."""
    whole = torch.as_strided(x, (x.shape[0], x.stride(0)), x.stride(), x.storage_offset())[:, x.shape[1] :]
    assert (whole.float() == torch.tensor(FILL).to(x.dtype).float()).all()
    return np.asarray(x.float().numpy(), np.float32)


def ids(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def token_parts(rows: torch.Tensor, cols: int) -> tuple[NDArray[np.int8], F32, F32]:
    """codes [R, whole lines], scale [R, 1], sums [R, cols / 16 + 1] of token rows."""
    length = -(-cols // 64) * 64
    tail = np.ascontiguousarray(rows.numpy()[:, length:]).view(np.float32)
    return rows.numpy()[:, :length].view(np.int8), tail[:, :1], tail[:, 1 : 2 + -(-cols // 16)]


def matrix(weight: F32 | Encoded, dtype: str) -> DeviceMatrix:
    """As constants.py puts it together; codes of 8 bits lose the 128 that an Encoded adds, and so do affine offsets."""
    n, k = weight.shape
    if not is_encoding(dtype):
        assert not isinstance(weight, Encoded)
        return DeviceMatrix(dtype, n, k, torch.from_numpy(weight).to(TORCH_DTYPES[dtype]))
    assert isinstance(weight, Encoded)
    codes, offset, zero = weight.codes, weight.offset, weight.zero
    if weight.encoding.kind == "float":
        stored = torch.from_numpy(codes).view(torch.float8_e4m3fn)
    elif weight.encoding.bits == 4:
        padded = np.pad(codes, ((0, 0), (0, k % 2)))
        stored = torch.from_numpy(padded[:, ::2] | padded[:, 1::2] << 4)
    else:
        stored = torch.from_numpy((codes.astype(np.int16) - 128).astype(np.int8))
        offset = None if offset is None else offset + np.float32(128) * weight.scale
        zero = None

    def by_group(part: NDArray[np.generic] | None) -> torch.Tensor | None:
        return None if part is None else torch.from_numpy(np.ascontiguousarray(part.T))

    return DeviceMatrix(
        dtype, n, k, stored, by_group(weight.scale), by_group(zero), by_group(offset), by_group(weight.gamma)
    )


def half_ulps(x: F32, dtype: str) -> F32:
    """What rounding to dtype may move numbers by."""
    return np.abs(x) * np.float32(ROUNDOFF[dtype]) + np.float32(2.0**-25 if dtype == "float16" else 2.0**-149)
