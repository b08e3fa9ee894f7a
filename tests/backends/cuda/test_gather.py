"""gather copies rows, of any element type and with any distance between them."""

from __future__ import annotations

import pytest
import torch

from albireo.backends.cuda.kernels.gather import gather


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("cols", [1, 70, 1030])
def test_gather(dtype: torch.dtype, cols: int) -> None:
    x = torch.randint(0, 200, (5, cols + 6)).to(dtype)[:, :cols]
    out = torch.zeros((3, cols + 2), dtype=dtype)
    rows = torch.tensor([4, 0, 4], dtype=torch.int32)
    gather(x, rows, out[:, :cols])
    assert torch.equal(out[:, :cols].float(), x[rows.long()].float())
    assert not out[:, cols:].float().any()
