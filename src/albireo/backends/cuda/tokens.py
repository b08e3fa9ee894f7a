"""Token rows as kernels of linears read them; row_codes.py writes them.

int8.token (csrc/include/albireo/tokens.h): codes int8 [round_up(K, 64)], their scale, and sums of codes before 0, 16,
32, ... and K, float32. fp8.g128.token: e4m3 codes [round_up(K, 128)], each 128 in the order of a weight's (matrix.py),
zeros where there is no input, and a scale for each 128, float32. Definitions: quantization/rounding.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from albireo.backends.cuda.matrix import PLANE
from albireo.dtypes import FP8_GROUP

#: Codes come in whole lines of so many; a sum stands for so many.
LINE, SUM_STEP = 64, 16
#: The same of e4m3 codes.
FLOAT_LINE = FP8_GROUP


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Views of rows: codes [T, bytes] int8, floats [T, bytes / 4] float32; first: of floats the scale, then sums."""

    codes: torch.Tensor
    floats: torch.Tensor
    first: int


def token_rows(x: torch.Tensor, k: int) -> TokenRows:
    """x: [T, row bytes] uint8."""
    return TokenRows(x.view(torch.int8), x.view(torch.float32), -(-k // LINE) * LINE // 4)


def e4m3_rows(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x: [T, row bytes] float8. Returns: views: codes [T, round_up(K, 128)]; scales [T, lines] float32."""
    lines = -(-k // FLOAT_LINE)
    first = lines * FLOAT_LINE // 4
    return x[:, : lines * FLOAT_LINE], x.view(torch.float32)[:, first : first + lines]


def numbers_of(x: torch.Tensor, k: int) -> torch.Tensor:
    """[T, k] float32: what rows of either kind, in host memory, stand for."""
    if x.dtype != torch.float8_e4m3fn:
        rows = token_rows(x, k)
        return rows.codes[:, :k].float() * rows.floats[:, rows.first, None]
    codes, scales = e4m3_rows(x, k)
    lines = codes.reshape(len(x), -1, PLANE, FLOAT_LINE // PLANE).transpose(2, 3).float()
    return (lines * scales[:, :, None, None]).reshape(len(x), -1)[:, :k]
