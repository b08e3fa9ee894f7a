"""A kernel of many operations, types and shapes, one whose programs take many ways, and what they compute: by Triton's
interpreter as it is where this is a process of its own, as tests hasten it where they import it.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import triton
import triton.language as tl

ROWS, COLS, PLANES = 4, 8, 30


@triton.jit
def _put(out, plane, at, value, SIZE: tl.constexpr):
    tl.store(out + plane * SIZE + at, value.to(tl.float32))


@triton.jit
def _operations(singles, halves, shorts, ints, chars, out, count, ROWS: tl.constexpr, COLS: tl.constexpr):
    rows, cols, size = tl.arange(0, ROWS), tl.arange(0, COLS), ROWS * COLS
    at = rows[:, None] * COLS + cols[None, :]
    is_in = (at < count) & (cols < COLS - 1)[None, :]
    a = tl.load(singles + at, mask=is_in, other=0.5)
    b = tl.load(singles + cols, mask=cols < 5)
    h = tl.load(halves + at)
    f = tl.load(shorts + at, mask=(rows < 3)[:, None], other=0)
    i = tl.load(ints + at, mask=is_in)
    j = tl.load(chars + at, mask=(cols < 6)[None, :], other=1)
    one = tl.load(ints + 1)
    _put(out, 0, at, a + b[None, :], size)
    _put(out, 1, at, a * 2.5, size)
    _put(out, 2, at, 1 - a, size)
    _put(out, 3, at, h * h, size)
    _put(out, 4, at, h + a, size)
    _put(out, 5, at, f.to(tl.float32) * a, size)
    _put(out, 6, at, a.to(tl.bfloat16), size)
    _put(out, 7, at, a.to(tl.float16), size)
    _put(out, 8, at, i + j, size)
    _put(out, 9, at, i * 3 - one, size)
    _put(out, 10, at, i & 7, size)
    _put(out, 11, at, i | j, size)
    _put(out, 12, at, i < j, size)
    _put(out, 13, at, i == 3, size)
    _put(out, 14, at, a >= b[None, :], size)
    _put(out, 15, at, a != a, size)
    _put(out, 16, at, i.to(tl.float32) * 0.0 + -0.0, size)
    _put(out, 17, at, h.to(tl.int32), size)
    _put(out, 18, at, (i > 0) & (j > 0), size)
    _put(out, 19, at, (i > 0) | (a > 0), size)
    _put(out, 20, at, j.to(tl.uint8).to(tl.int32) * j, size)
    _put(out, 21, at, i.to(tl.int64) * 65537 + at, size)
    _put(out, 22, at, j + j, size)
    _put(out, 23, at, j * 2, size)
    _put(out, 24, at, (i > 0) + (j > 0), size)
    _put(out, 25, at, i <= one, size)
    _put(out, 26, at, tl.load(singles + one + at, mask=at < 8, other=-1), size)
    _put(out, 27, at, f, size)
    _put(out, 28, at, h - 1, size)
    _put(out, 29, at, a.to(tl.float64) * a + 0.0, size)


def computed() -> np.ndarray:
    """[PLANES, ROWS, COLS], bits of float32. Among the numbers are all kinds there are."""
    rng, shape = np.random.default_rng(4), (ROWS, COLS)
    numbers = (rng.standard_normal(shape) * 50).astype(np.float32)
    numbers.flat[:7] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -3e-39]
    singles, ints = torch.from_numpy(numbers), torch.from_numpy(rng.integers(-9, 9, shape, np.int32))
    ints.view(-1)[1] = 3
    out = torch.zeros((PLANES, ROWS, COLS))
    with np.errstate(all="ignore"):
        _operations[(1,)](
            singles,
            torch.from_numpy(np.clip(numbers, -90, 90)).half().nan_to_num(),
            singles.bfloat16(),
            ints,
            torch.from_numpy(rng.integers(-128, 127, shape, np.int8)),
            out,
            29,
            ROWS=ROWS,
            COLS=COLS,
        )
    return out.numpy().view(np.uint32)


@triton.jit
def _ways(numbers, lengths, counters, out, width, SIZE: tl.constexpr):
    row, half, at = tl.program_id(0), tl.program_id(1), tl.arange(0, SIZE)
    length = tl.load(lengths + row)
    total = tl.zeros((SIZE,), tl.float32)
    for start in range(half * 2, length, 2):
        mask = start + at < width
        total += tl.load(numbers + row * width + start + at, mask=mask, other=0.0) * (start + 1)
    for i in tl.range(0, length):
        total += i
    if tl.sum(total, 0) > 4:
        total = total * total
    elif length > 2:
        total = tl.where(at < length, total, -1)
    if tl.atomic_add(counters + row, 1, sem="relaxed") == 1:
        total += tl.max(total, 0) + tl.cumsum(total, 0)
    tl.store(out + (row * tl.num_programs(1) + half) * SIZE + at, total)


def ways() -> np.ndarray:
    """[rows, 2, 8], bits of float32, of as many programs."""
    rng, rows, width = np.random.default_rng(6), 9, 12
    numbers = torch.from_numpy(rng.standard_normal((rows, width)).astype(np.float32))
    lengths = torch.tensor([0, 1, 2, 3, 3, 5, 5, 7, 2], dtype=torch.int32)
    out = torch.zeros((rows, 2, 8))
    _ways[(rows, 2)](numbers, lengths, torch.zeros(rows, dtype=torch.int32), out, width, SIZE=8)
    return out.numpy().view(np.uint32)


if __name__ == "__main__":
    np.savez(sys.argv[1], computed=computed(), ways=ways())
