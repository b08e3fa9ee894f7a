"""Questions of the design: does an element of a product depend on the width of its tile, or on the instruction?

Weight rows are the tile's rows, tokens its columns, as in the linears. On Hopper tiles of 64 rows and more are computed
by wgmma (HGMMA, QGMMA), of 16 rows by mma (HMMA). Compared are the bits of the same elements. Where both sides are
e4m3, many tokens are the rows of a tile (kernels/parts/chain_e4m3.py): so also with the operands exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from report import Row
from setup import Setup, attempt


@triton.jit
def product_kernel(
    a, b, out, tokens, K, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr, FLOAT32: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in range(0, K, BLOCK_K):
        x = tl.load(a + row[:, None] * K + (start + k)[None, :])
        y = tl.load(b + token[None, :] * K + (start + k)[:, None])
        if FLOAT32:
            total = tl.dot(x.to(tl.float32), y.to(tl.float32), total, input_precision="ieee")
        else:
            total = tl.dot(x, y, total)
    tl.store(out + row[:, None] * tokens + token[None, :], total)


def run(setup: Setup) -> Iterator[Row]:
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16, "fp8": torch.float8_e4m3fn}
    for name, dtype in kinds.items():
        yield from attempt(name, lambda name=name, dtype=dtype: _compare(setup, name, dtype))


def _compare(setup: Setup, name: str, dtype: torch.dtype) -> Iterator[Row]:
    rows, tokens, k = setup.pick((4096, 256, 4096), (64, 32, 64))
    a, b = setup.random(rows, k, seed=1).to(dtype), setup.random(tokens, k, seed=2).to(dtype)
    exact = a.double() @ b.double().T

    def product(
        tile_rows: int, width: int, block_k: int, warps: int, left: torch.Tensor = a, right: torch.Tensor = b
    ) -> torch.Tensor:
        out = torch.empty((len(left), len(right)), dtype=torch.float32, device=setup.device)
        product_kernel[(len(left) // tile_rows, len(right) // width)](
            left, right, out, len(right), k, ROWS=tile_rows, TOKENS=width, BLOCK_K=block_k, FLOAT32=setup.is_dry,
            num_warps=warps,
        )  # fmt: skip
        return out

    block_k = setup.pick(64, 32)
    base = product(64, setup.pick(64, 16), block_k, 4)
    off = float((base.double() - exact).abs().max() / exact.abs().max())
    yield Row(f"{name}: largest error of 64 x 64", off, "of the largest", is_good=off < 1e-2)
    tiles = [(64, width, block_k, 4) for width in setup.pick((16, 32, 128, 256), (32,))]
    tiles += setup.pick([(128, 64, 64, 4), (128, 128, 64, 8), (64, 64, 128, 4), (16, 64, 64, 4)], [(16, 16, 32, 4)])
    for tile in tiles:
        found = product(*tile)
        differ = float((found != base).double().mean())
        by = "mma" if tile[0] == 16 else "wgmma"
        note = f"by {float((found - base).abs().max() / exact.abs().max()):.1e} at most"
        yield Row(f"{name}: {tile[0]} x {tile[1]}, k {tile[2]}, {by}", differ, "of all differ", note)
    wide = setup.pick((64, 128, block_k, 4), (32, 32, block_k, 4))
    differ = float((base != product(*wide, left=b, right=a).T).double().mean())
    yield Row(
        f"{name}: operands exchanged", differ, "of all differ", is_good=differ == 0 or name != "fp8" or setup.is_dry
    )
