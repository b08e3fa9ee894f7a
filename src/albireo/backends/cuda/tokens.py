"""Token rows ("int8.token", csrc/include/albireo/tokens.h) as kernels of linears read them; row_codes.py writes them.

A row is codes int8 [round_up(K, 64)], their scale, and sums of codes before 0, 16, 32, ... and K, float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Codes come in whole lines of so many; a sum stands for so many.
LINE, SUM_STEP = 64, 16


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Views of rows: codes [T, bytes] int8, floats [T, bytes / 4] float32; first: of floats the scale, then sums."""

    codes: torch.Tensor
    floats: torch.Tensor
    first: int


def token_rows(x: torch.Tensor, k: int) -> TokenRows:
    """x: [T, row bytes] uint8."""
    return TokenRows(x.view(torch.int8), x.view(torch.float32), -(-k // LINE) * LINE // 4)
