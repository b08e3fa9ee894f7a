"""Rows and blocks behind 2^31 elements: what 32 bits cannot count is reached all the same, and gives the same bits.

Gate and up of 16,384 tokens are 1.9e9 bytes, logits of all of them 2.1e9 numbers, and the KV blocks of a layer may be
more. Here three rows lie as far apart, in memory that is there where it is touched only.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.causal_conv import causal_conv
from albireo.backends.cuda.kernels.copy_blocks import launch_copy
from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.embed import embed
from albireo.backends.cuda.kernels.gated_delta_rule import gated_delta_rule
from albireo.backends.cuda.kernels.gather import gather
from albireo.backends.cuda.kernels.head_norm import head_norm
from albireo.backends.cuda.kernels.kv_write import kv_write
from albireo.backends.cuda.kernels.matmul import matmul
from albireo.backends.cuda.kernels.matmul_int8 import matmul_int8
from albireo.backends.cuda.kernels.matmul_smallm import matmul_smallm
from albireo.backends.cuda.kernels.norm import norm
from albireo.backends.cuda.kernels.output_gate import output_gate
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, RowSquares
from albireo.backends.cuda.kernels.rope import rope
from albireo.backends.cuda.kernels.row_factors import row_factors
from albireo.backends.cuda.kernels.slice_columns import slice_columns
from albireo.backends.cuda.kernels.top import top, top_workspace
from albireo.backends.cuda.kv import DeviceKV, LayerKV, most_blocks
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.step import StateSlots
from albireo.graph.kv_layout import KVLayout
from albireo.graph.op_numbers import TOP_LOGITS
from backends.cuda.draws import drawn
from backends.cuda.linears import random
from backends.cuda.tensors import ids
from backends.cuda.test_attention import Shape, World
from backends.cuda.test_sample import task

#: Rows of a test, and elements from one to the next: the last begins behind 2^31.
ROWS, APART = 3, 2**30 + 64
#: Linux: memory that is promised and not there. Python 3.11 has no name for it.
_NO_RESERVE = 0x4000
BF16, F32 = torch.bfloat16, torch.float32
NAMES = ids([2, 0, 1])


def untouched(count: int, dtype: torch.dtype) -> torch.Tensor:
    """So many zeros, which take no memory until they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize, flags=flags), dtype=dtype)


def far(rows: torch.Tensor) -> torch.Tensor:
    """A copy with rows that are APART."""
    stored = untouched((ROWS - 1) * APART + rows.shape[1], rows.dtype).as_strided(rows.shape, (APART, 1))
    return stored.copy_(rows)


def x(cols: int, dtype: torch.dtype = F32) -> torch.Tensor:
    return random(ROWS, cols, seed=cols, dtype=dtype)


def room(cols: int, dtype: torch.dtype = F32) -> torch.Tensor:
    return torch.full((ROWS, cols), 7.0, dtype=dtype)


def tokens() -> torch.Tensor:
    """Rows of 64 codes with the scale 1, and sums that nobody asks for."""
    rows = torch.zeros(ROWS, 128, dtype=torch.uint8)
    rows[:, :64] = torch.randint(0, 256, (ROWS, 64), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    rows.view(F32)[:, 16] = 1.0
    return rows


VECTOR = random(64, seed=2)
MATRIX = DeviceMatrix("bfloat16", 64, 64, random(64, 64, seed=9, dtype=BF16))
CODES = torch.arange(-32, 32, dtype=torch.int8).repeat(33, 1)
TABLE = random(9, 16, seed=7)
CONV = random(16, 4, seed=8)
#: Slots, rows and contexts of sequences that have a token each, behind others, and snapshots: none.
GO_ON = StateSlots(NAMES, ids([0, 1, 2, 3]), ids([9, 9, 9]), NAMES, ids([0, 0, 0]))
#: Two sequences; the last slot is for a snapshot of the second, behind its first row.
LEAVE = StateSlots(ids([1, 0]), ids([0, 1, 3]), ids([9, 9]), ids([0, 2]), ids([0, 1]))
#: Name -> rows of which each is read or written once, and what does both.
CASES: dict[str, tuple[list[torch.Tensor], Callable[..., None]]] = {
    "norm": ([x(64), room(64, BF16)], lambda a, out: norm(a, VECTOR, out, 1e-5, 64, NAMES)),
    "cast": ([x(64), room(64, BF16)], lambda a, out: elementwise("cast", a, None, out, 64)),
    "add": ([x(64), x(64), room(64)], lambda a, b, out: elementwise("add", a, b, out, 64)),
    "gather": ([x(64), room(64)], lambda a, out: gather(a, NAMES, out)),
    "slice": ([x(64), room(32)], lambda a, out: slice_columns(a, 16, out)),
    "embed": ([x(64), room(64)], lambda a, out: embed(NAMES, replace(MATRIX, dtype="float32", rows=3, codes=a), out)),
    "head norm": ([x(64), room(64)], lambda a, out: head_norm(a, VECTOR[:16], out, 1e-5, 4)),
    "output gate": ([x(64), x(64), room(64)], lambda a, b, out: output_gate("silu", a, b, VECTOR[:16], out, 4, 1e-5)),
    "convolution": ([x(16), x(48), room(16)], lambda a, kept, out: causal_conv(a, CONV, kept, out, GO_ON)),
    "recurrence": (
        [x(64), x(4), x(512), room(32)],
        lambda a, b, kept, out: gated_delta_rule(a, b, VECTOR[:2], VECTOR[2:4], kept, out, GO_ON, 1, 16, 16),
    ),
    "snapshot of a convolution": (
        [x(16), x(48), room(16)],
        lambda a, kept, out: causal_conv(a, CONV, kept, out, LEAVE),
    ),
    "snapshot of a recurrence": (
        [x(64), x(4), x(512), room(32)],
        lambda a, b, kept, out: gated_delta_rule(a, b, VECTOR[:2], VECTOR[2:4], kept, out, LEAVE, 1, 16, 16),
    ),
    "rope": ([x(64), room(64)], lambda a, out: rope(a, TABLE, NAMES, out, 4, 16)),
    "few tokens": ([x(64), room(64)], lambda r, out: matmul_smallm(x(64, BF16), MATRIX, Finish(out, 64, residual=r))),
    "parts of a norm": (
        [room(64, BF16), room(1)],
        lambda a, b: matmul_smallm(x(64, BF16), MATRIX, Finish(x(64), 64, parts_out=RowParts(VECTOR, a, b))),
    ),
    "many tokens": (
        [x(64, BF16), x(64), room(64)],
        lambda a, r, out: matmul(a, MATRIX, Finish(out, 64, residual=r), use_tma=False),
    ),
    "many tokens, by TMA": ([x(64, BF16), room(64)], lambda a, out: matmul(a, MATRIX, Finish(out, 64))),
    "codes": ([tokens(), room(33)], lambda a, out: matmul_int8(a, CODES, VECTOR[None, :33], Finish(out, 33))),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_far_apart(name: str) -> None:
    near, launch = CASES[name]
    away, at_hand = [far(each) for each in near], [each.clone() for each in near]
    launch(*at_hand)
    launch(*away)
    for a, b in zip(away, at_hand, strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(near, at_hand, strict=True))


def test_factors_of_rows_far_apart() -> None:
    squares = x(2).square()
    found = [torch.zeros(ROWS) for _ in range(2)]
    for each, rows in zip(found, (squares, far(squares)), strict=True):
        row_factors(RowSquares(rows, each, 1e-3, 128), each)
    assert torch.equal(*found) and found[0].all()


def test_logits_far_apart() -> None:
    """The best few, and tokens that are drawn: with top-k, top-p, both, from all of the row, and changed logits."""
    logits = x(150) * 3
    away = far(logits)
    found = []
    for rows in (logits, away):
        best, values = torch.zeros(ROWS, TOP_LOGITS, dtype=torch.int32), torch.zeros(ROWS, TOP_LOGITS)
        top(rows, ids([1, 5, 3]), best, values, torch.zeros(top_workspace(ROWS, 150), dtype=torch.int64))
        found.append((best, values))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    tasks = [task(i, **some) for i, some in enumerate([{}, {"top_k": 5}, {"top_p": 0.8}, {"logit_bias": {3: 4.0}}])]
    rows = [2, 1, 2, 2]
    assert drawn(away.numpy(), tasks, rows) == drawn(logits.numpy(), tasks, rows)


@pytest.mark.parametrize("kv", ["bfloat16", "int8"])
@pytest.mark.usefixtures("ordered_dot")
def test_blocks_behind_all_others(kv: str) -> None:
    """Copied there, read by attention, and written anew: the last blocks of a pool of more than 2^31 numbers."""
    world = World(Shape(kv=kv), [40, 21], [3, 21])
    near, wanted = world.layer, world.run([0, 1])
    first = 2**31 // near.k[0].numel() + 1
    blocks = first + len(near.k)
    (k, k_scale), (v, v_scale) = (
        (untouched(blocks * part[0].numel(), part.dtype).view(blocks, *part.shape[1:]), scale)
        for part, scale in ((near.k, near.k_scale), (near.v, near.v_scale))
    )
    scales = [
        None if s is None else untouched(blocks * s[0].numel(), F32).view(blocks, *s.shape[1:])
        for s in (k_scale, v_scale)
    ]
    pairs = torch.tensor([[i, first + i] for i in range(len(near.k))], dtype=torch.int32)
    for source, target in ((near.k, k), (near.v, v), (near.k_scale, scales[0]), (near.v_scale, scales[1])):
        if source is not None and target is not None:
            words, away = (part.view(torch.int32).flatten(1)[None] for part in (source, target))
            launch_copy(words, away, pairs)
    world.layer = LayerKV(k, v, *scales)
    for each in world.sequences:
        each.blocks = [first + block for block in each.blocks]
    assert torch.equal(world.run([0, 1]), wanted)
    slots, rows = ids([17, 5]), [random(2, 32, seed=seed) for seed in (1, 2)]
    kv_write(*rows, slots, near, 2, 16)
    kv_write(*rows, slots + first * 16, world.layer, 2, 16)
    for here, there in ((near.k, k), (near.v, v)):
        for block, at in ((1, 1), (0, 5)):
            assert np.array_equal(here[block, :, at].float().numpy(), there[first + block, :, at].float().numpy())


@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
@pytest.mark.parametrize("groups", [(), ((0, 2, 4), (1, 3))])
def test_a_pool_has_no_more_blocks_than_can_be_counted(dtype: str, groups: tuple[tuple[int, ...], ...]) -> None:
    """In 32 bits: positions of a layer's cache, as kernels are told them, and scales of codes."""
    layout = KVLayout(5, 4, 64, dtype, 16, groups=groups, windows=(None, 128) if groups else (None,))
    kv = DeviceKV(layout, 3, torch.device("cpu"))
    counted = max(
        len(layer.k) * layer.k.shape[2] if layer.k_scale is None else layer.k_scale.numel() for layer in kv.layers
    )
    most = most_blocks(layout)
    assert most * (counted // 3) < 2**31 <= (most + 1) * (counted // 3)
