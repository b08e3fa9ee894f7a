"""adapter: low = x @ A^T of each row's own adapter (LoRA), float32; of rows without one zeros.

x: [T, K] float32, bfloat16 or float16, or rows of codes (../tokens.py), whose scales come behind their products; a:
[slots, ranks, row length] float32, of e4m3 in the order that those codes lie in, zeros behind K; slots: [T] int32, -1
where a row has none. out: [T, ranks] float32. Where inputs are several equal leaves, of numbers, each meets rows of a
of its own, which are as long as a leaf: ranks of the first leaf, then those of the next.

A tile is 16 rows by 16 ranks, once for each adapter that its rows have. Products of float32 are one chain of ascending
k for each PART_K inputs, and these are added in ascending order: by one program, or, of few rows, a program a part, the
last of which adds them and sets its counter back to zero. So a row's bits depend on the row and its adapter only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import mma
from albireo.backends.cuda.kernels.parts.arriving import is_last_of, set_back
from albireo.backends.cuda.tokens import FLOAT_LINE, e4m3_rows, token_rows
from albireo.backends.cuda.workspace import MAX_COUNTERS, counters_and_parts

#: What x is: numbers, codes with a scale a row, codes with a scale for each FLOAT_LINE.
NUMBERS, ROW_SCALED, LINE_SCALED = 0, 1, 2
_ROW_SCALED, _LINE_SCALED, _LINE = tl.constexpr(ROW_SCALED), tl.constexpr(LINE_SCALED), tl.constexpr(FLOAT_LINE)
TOKENS, RANKS = 16, 16
_BLOCK_K = 32
#: Inputs of a chain: whole lines.
PART_K = 512
#: Most rows whose parts are given to programs of their own.
SPLIT_TOKENS = 256
#: Behind all slots.
_NONE = tl.constexpr(1 << 30)


def num_part_elements(max_tokens: int, ranks: int, k: int, leaves: int = 1) -> int:
    """Elements of the parts of the largest call that has such. ranks, k: of all leaves together."""
    tiles = -(-min(max_tokens, SPLIT_TOKENS) // TOKENS) * leaves * -(-ranks // leaves // RANKS)
    return -(-k // leaves // PART_K) * min(tiles, MAX_COUNTERS) * TOKENS * RANKS


@triton.jit
def _chain(x_at, a_at, scales, at_k, is_token, is_rank, first, end, KIND: tl.constexpr, BLOCK_K: tl.constexpr):
    """[TOKENS, RANKS] sums over k from first to end. x_at: [TOKENS, BLOCK_K], a_at: [RANKS, BLOCK_K], of k = 0."""
    acc = tl.zeros((x_at.shape[0], a_at.shape[0]), tl.float32)
    if KIND == _LINE_SCALED:
        for start in range(first, end, _LINE):
            sums = tl.zeros(acc.shape, tl.float32)
            for block in tl.static_range(_LINE // BLOCK_K):
                at = start + block * BLOCK_K
                x = tl.load(x_at + at, mask=is_token[:, None], other=0.0)
                a = tl.load(a_at + at, mask=is_rank[:, None], other=0.0)
                sums = mma(x.to(tl.float32), tl.trans(a), sums)
            acc = tl.fma(sums, tl.load(scales + start // _LINE, mask=is_token, other=0.0)[:, None], acc)
    else:
        for start in range(first, end, BLOCK_K):
            is_in = (at_k < end - start)[None, :]
            x = tl.load(x_at + start, mask=is_token[:, None] & is_in, other=0)
            a = tl.load(a_at + start, mask=is_rank[:, None] & is_in, other=0.0)
            acc = mma(x.to(tl.float32), tl.trans(a), acc)
    return acc


@triton.jit(do_not_specialize=["num_tokens"])
def adapter_kernel(
    x,
    scales,
    a,
    slots,
    out,
    parts,
    counters,
    num_tokens,
    k,
    num_ranks,
    x_stride,
    scales_stride,
    first_scale,
    row_length,
    out_stride,
    KIND: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    TOKENS: tl.constexpr,
    RANKS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PART: tl.constexpr,
    LEAVES: tl.constexpr,
):
    tile, part = tl.program_id(0), tl.program_id(2)
    token = tile * TOKENS + tl.arange(0, TOKENS)
    if LEAVES == 1:
        rank = tl.program_id(1) * RANKS + tl.arange(0, RANKS)
        is_rank = rank < num_ranks
    else:
        of_leaf = tl.num_programs(1) // LEAVES
        leaf = tl.program_id(1) // of_leaf
        rank = tl.program_id(1) % of_leaf * RANKS + tl.arange(0, RANKS)
        is_rank = rank < num_ranks // LEAVES
        rank += leaf * (num_ranks // LEAVES)
        x += leaf * k
    is_token = token < num_tokens
    slot = tl.load(slots + token, mask=is_token, other=-1)
    at_k = tl.arange(0, BLOCK_K)
    x_at = x + token.to(tl.int64)[:, None] * x_stride + at_k[None, :]
    scale_at = scales + token.to(tl.int64) * scales_stride + first_scale
    begin = part * PART
    stop = tl.minimum(begin + PART, k) if IS_SPLIT else k
    total = tl.zeros((TOKENS, RANKS), tl.float32)
    now = tl.min(tl.where(slot >= 0, slot, _NONE), axis=0)
    while now < _NONE:
        has_now = slot == now
        a_at = a + (now.to(tl.int64) * num_ranks + rank)[:, None] * row_length + at_k[None, :]
        sums = tl.zeros((TOKENS, RANKS), tl.float32)
        for first in range(begin, stop, PART):
            end = tl.minimum(first + PART, k)
            sums += _chain(x_at, a_at, scale_at, at_k, has_now, is_rank, first, end, KIND, BLOCK_K)
        total = tl.where(has_now[:, None], sums, total)
        now = tl.min(tl.where(slot > now, slot, _NONE), axis=0)
    is_last = True
    if IS_SPLIT:
        count = tl.num_programs(2)
        counter = tile * tl.num_programs(1) + tl.program_id(1)
        place = tl.arange(0, TOKENS)[:, None] * RANKS + tl.arange(0, RANKS)[None, :]
        of_tile = parts + counter * count * (TOKENS * RANKS) + place
        tl.store(of_tile + part * (TOKENS * RANKS), total)
        is_last = is_last_of(counters + counter, count)
        if is_last:
            total = tl.zeros((TOKENS, RANKS), tl.float32)
            for i in range(count):
                total += tl.load(of_tile + i * (TOKENS * RANKS), cache_modifier=".cg")
            set_back(counters + counter)
    if is_last:
        if KIND == _ROW_SCALED:
            total *= tl.load(scale_at, mask=slot >= 0, other=0.0)[:, None]
        at = out + token.to(tl.int64)[:, None] * out_stride + rank[None, :]
        tl.store(at, total, mask=is_token[:, None] & is_rank[None, :])


def adapter(
    x: torch.Tensor,
    a: torch.Tensor,
    slots: torch.Tensor,
    out: torch.Tensor,
    k: int,
    workspace: torch.Tensor | None = None,
    leaves: int = 1,
) -> None:
    """k: inputs. workspace: of num_part_elements(), where parts are given to programs; None: none are."""
    k //= leaves
    codes, scales, first, kind = x, x, 0, NUMBERS
    if x.dtype == torch.float8_e4m3fn:
        codes, scales = e4m3_rows(x, k)
        kind = LINE_SCALED
    elif x.dtype == torch.uint8:
        rows = token_rows(x, k)
        codes, scales, first, kind = rows.codes, rows.floats, rows.first, ROW_SCALED
    num_ranks = a.shape[1]
    tiles, of_ranks = triton.cdiv(len(x), TOKENS), leaves * triton.cdiv(num_ranks // leaves, RANKS)
    count = triton.cdiv(k, PART_K)
    is_split = count > 1 and workspace is not None and len(x) <= SPLIT_TOKENS and tiles * of_ranks <= MAX_COUNTERS
    counters, parts = out, out
    if is_split:
        counters, parts = counters_and_parts(workspace, count * tiles * of_ranks * TOKENS * RANKS)
    adapter_kernel[(tiles, of_ranks, count if is_split else 1)](
        codes,
        scales,
        a,
        slots,
        out,
        parts,
        counters,
        len(x),
        k,
        num_ranks,
        codes.stride(0),
        scales.stride(0),
        first,
        a.shape[2],
        out.stride(0),
        KIND=kind,
        IS_SPLIT=is_split,
        TOKENS=TOKENS,
        RANKS=RANKS,
        BLOCK_K=_BLOCK_K,
        PART=PART_K,
        LEAVES=leaves,
        num_warps=4,
        num_stages=3,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = ("x_stride", "scales_stride", "first_scale", "row_length", "out_stride")

    def case(name: str, x: str, kind: int, is_split: bool, leaves: int = 1) -> AotCase:
        pointers = {"x": x, "scales": "*fp32" if kind else x, "a": "*fp32", "slots": "*i32", "out": "*fp32"}
        pointers |= {"parts": "*fp32", "counters": "*i32" if is_split else "*fp32"}
        constants = {"KIND": kind, "IS_SPLIT": is_split, "TOKENS": TOKENS, "RANKS": RANKS, "BLOCK_K": _BLOCK_K}
        return AotCase(
            f"adapter.{name}{'.parts' * is_split}",
            adapter_kernel,
            pointers | dict.fromkeys(("num_tokens", "k", "num_ranks", *strides), "i32"),
            constants | {"PART": PART_K, "LEAVES": leaves},
            num_stages=3,
            aligned=(*pointers, "k", "num_ranks", *strides),
            max_registers=128,
            max_shared=32 << 10,
            words={90: ("FFMA",)},
            architectures=(90,) if is_split else (80, 90, 100),
        )

    return [
        case("bfloat16", "*bf16", NUMBERS, False),
        case("bfloat16", "*bf16", NUMBERS, True),
        case("bfloat16.leaves", "*bf16", NUMBERS, True, 4),
        case("float32", "*fp32", NUMBERS, True),
        case("int8", "*i8", ROW_SCALED, True),
        case("e4m3", "*fp8e4nv", LINE_SCALED, True),
    ]
