"""move_rows puts rows where they are kept, rounded, and takes them from there."""

from __future__ import annotations

import pytest
import torch

from albireo.backends.cuda.kernels.move_rows import move_rows


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cols", [1, 70, 1030])
def test_rows_are_put_and_taken(kept: torch.dtype, cols: int) -> None:
    """Kernels count 12 places a block of 4; rows lie in wider ones, and others stay as they are."""
    x = torch.randn((3, cols + 6), generator=torch.Generator().manual_seed(1))[:, :cols]
    store = torch.full((16, cols + 2), 7.0, dtype=kept)
    slots = torch.tensor([13, 38, 27], dtype=torch.int32)
    places = torch.tensor([5, 14, 11])
    move_rows(x, store[:, :cols], put=slots, size=4, span=12)
    wanted = torch.full((16, cols + 2), 7.0, dtype=kept)
    wanted[places, :cols] = x.to(kept)
    assert torch.equal(store.float(), wanted.float())
    out = torch.zeros((3, cols + 4))
    move_rows(store[:, :cols], out[:, :cols], taken=places[[2, 0, 0]].int())
    assert torch.equal(out[:, :cols], x.to(kept).float()[[2, 0, 0]]) and not out[:, cols:].any()


def test_no_rows_are_no_launch() -> None:
    store = torch.full((4, 3), 7.0)
    move_rows(torch.zeros((0, 3)), store, put=torch.zeros(0, dtype=torch.int32), size=2, span=2)
    assert (store == 7.0).all()
