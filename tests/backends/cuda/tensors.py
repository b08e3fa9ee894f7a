"""Arrays on the way into and out of kernels under test: numpy's float32 for numbers, torch tensors for kernels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.tokens import SUM_STEP, e4m3_rows, numbers_of, token_rows
from albireo.dtypes import FP8_TOKEN, TOKEN, natural_stride
from backends.cpu.harness import F32

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
    if dtype == FP8_TOKEN:
        return torch.full((rows, natural_stride(dtype, cols)), 0x7E, dtype=torch.uint8).view(torch.float8_e4m3fn)
    return tensor(np.full((rows, cols), FILL, np.float32), dtype)


def numbers(x: torch.Tensor) -> F32:
    """What a tensor holds, as float32; behind its rows nothing may have been written."""
    whole = torch.as_strided(x, (x.shape[0], x.stride(0)), x.stride(), x.storage_offset())[:, x.shape[1] :]
    assert (whole.float() == torch.tensor(FILL).to(x.dtype).float()).all()
    return np.asarray(x.float().numpy(), np.float32)


def ids(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def token_parts(rows: torch.Tensor, cols: int) -> tuple[NDArray[np.int8], F32, F32]:
    """codes [R, whole lines], scale [R, 1], sums [R, cols / 16 + 1] of token rows; nothing may be written behind."""
    views, num_sums = token_rows(rows, cols), 1 + -(-cols // SUM_STEP)
    tail = views.floats[:, views.first :].numpy()
    assert (np.ascontiguousarray(tail[:, 1 + num_sums :]).view(np.uint8) == 0x7F).all()
    return views.codes[:, : 4 * views.first].numpy(), tail[:, :1], tail[:, 1 : 1 + num_sums]


def e4m3_parts(rows: torch.Tensor, cols: int) -> tuple[F32, F32]:
    """What rows of e4m3 [R, C] stand for, and their scales [R, C], of each number its group's; nothing may be written
    behind, zeros in between."""
    codes, scales = e4m3_rows(rows, cols)
    assert (rows.view(torch.uint8)[:, codes.shape[1] + 4 * scales.shape[1] :] == 0x7E).all()
    whole = numbers_of(rows, codes.shape[1]).numpy()
    assert not np.nan_to_num(whole[:, cols:]).any()
    return whole[:, :cols], np.repeat(scales.numpy(), codes.shape[1] // scales.shape[1], axis=1)[:, :cols]
