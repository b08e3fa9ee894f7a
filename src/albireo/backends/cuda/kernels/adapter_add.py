"""adapter_add: out = epilogue((sums + low @ B) * factors), what a linear does behind its sums, with adapters (LoRA).

sums: [T, weight rows] float32, scaled as the weight is; low: [T, modules * max_rank] float32, what adapter.py gives; b:
[slots, max_rank, weight rows] float32; ranks: [slots, modules] int32, 0 where an adapter has nothing for a module;
module_of: [weight rows] int32, -1 where a row is of none; slots: [T] int32, -1 where a row has no adapter: to those
nothing is added. factors: [T] of a norm inside the linear, or None. Epilogue: see parts/epilogue.py. A product is one
chain of ascending rank, so a row's bits depend on the row and its adapter only; without one they are those of the
linear that ends its sums itself. Of the leaves of a sum, [leaves, T, weight rows] without gaps, each gets its part of
low, [T, leaves * modules * max_rank], and stays where it is: what adds them up does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import mma
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.linear_cases import NORM_POINTERS, OF_NORM
from albireo.backends.cuda.kernels.parts.row_squares import parts_arguments

_TOKENS, _WARPS = 16, 8
#: Rows of the weight of a tile, and registers of a thread, with which none is kept in memory: of codes, of whose groups
#: a gate has twice as many rows, and of numbers.
_OF_CODES, _OF_NUMBERS = (256, None), (128, 128)
_RANKS = 16
#: Behind all slots and modules.
_NONE = tl.constexpr(1 << 30)


@dataclass(frozen=True, slots=True)
class LowRows:
    """What rows get of their adapters.

    Fields: low: [T, modules * max_rank] float32. slots: [T] int32. b, ranks, module_of: see above. space: float32, for
        the sums of some rows at once.
    """

    low: torch.Tensor
    slots: torch.Tensor
    b: torch.Tensor
    ranks: torch.Tensor
    module_of: torch.Tensor
    space: torch.Tensor

    def turn(self, rows: slice) -> LowRows:
        """Of some of the rows."""
        return replace(self, low=self.low[rows], slots=self.slots[rows])


@triton.jit(do_not_specialize=["num_tokens"])
def adapter_add_kernel(
    sums,
    low,
    b,
    ranks,
    module_of,
    slots,
    factors,
    out,
    bias,
    residual,
    gain,
    scaled,
    squares,
    num_tokens,
    n,
    num_rows,
    num_modules,
    max_rank,
    sums_stride,
    low_stride,
    out_stride,
    residual_stride,
    scaled_stride,
    squares_stride,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    LEAVES: tl.constexpr,
):
    if LEAVES > 1:
        leaf = tl.program_id(2)
        sums += leaf.to(tl.int64) * num_tokens * sums_stride
        out += leaf.to(tl.int64) * num_tokens * out_stride
        low += leaf * num_modules * max_rank
    first_row, first_token = tl.program_id(0) * ROWS, tl.program_id(1) * TOKENS
    row, token = first_row + tl.arange(0, ROWS), first_token + tl.arange(0, TOKENS)
    is_row, is_token = row < num_rows, token < num_tokens
    total = tl.load(
        sums + token.to(tl.int64)[:, None] * sums_stride + row[None, :],
        mask=is_token[:, None] & is_row[None, :],
        other=0.0,
    )
    slot = tl.load(slots + token, mask=is_token, other=-1)
    module = tl.load(module_of + row, mask=is_row, other=-1)
    low_at = low + token.to(tl.int64)[:, None] * low_stride
    now = tl.min(tl.where(slot >= 0, slot, _NONE), axis=0)
    while now < _NONE:
        has_now = slot == now
        place = tl.min(tl.where(module >= 0, module, _NONE), axis=0)
        while place < _NONE:
            rank = tl.load(ranks + now * num_modules + place)
            more = tl.zeros((TOKENS, ROWS), tl.float32)
            for first in range(0, rank, RANKS):
                at = first + tl.arange(0, RANKS)
                is_rank = at < rank
                of_row = low_at + (place * max_rank + at)[None, :]
                x = tl.load(of_row, mask=has_now[:, None] & is_rank[None, :], other=0.0)
                of_rank = b + (now.to(tl.int64) * max_rank + at)[:, None] * num_rows + row[None, :]
                more = mma(x, tl.load(of_rank, mask=is_rank[:, None] & is_row[None, :], other=0.0), more)
            gets = has_now[:, None] & (module == place)[None, :] & (rank > 0)
            total = tl.where(gets, total + more, total)
            place = tl.min(tl.where(module > place, module, _NONE), axis=0)
        now = tl.min(tl.where(slot > now, slot, _NONE), axis=0)
    if factors is not None:
        total *= tl.load(factors + tl.minimum(token, num_tokens - 1))[:, None]
    finish(
        total, first_token, first_row, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL, gain, scaled, scaled_stride, squares, squares_stride,
    )  # fmt: skip


def adapter_add(
    sums: torch.Tensor,
    added: LowRows,
    end: Finish,
    factors: torch.Tensor | None = None,
    fuses: bool = False,
    leaves: int = 1,
) -> None:
    """fuses: products and sums may become one operation, as where the sums were made. leaves: sums are the first's, and
    what end writes."""
    num_rows = sums.shape[1]
    written = end.out if end.parts_out is None else end.parts_out.scaled
    rows, registers = _OF_CODES if written.dtype == torch.float8_e4m3fn else _OF_NUMBERS
    adapter_add_kernel[(triton.cdiv(num_rows, rows), triton.cdiv(len(sums), _TOKENS), leaves)](
        sums=sums,
        low=added.low,
        b=added.b,
        ranks=added.ranks,
        module_of=added.module_of,
        slots=added.slots,
        factors=factors,
        num_tokens=len(sums),
        num_rows=num_rows,
        num_modules=added.ranks.shape[1],
        max_rank=added.b.shape[1],
        sums_stride=sums.stride(0),
        low_stride=added.low.stride(0),
        **end.arguments(),
        **parts_arguments(end.parts_out),
        TOKENS=_TOKENS,
        ROWS=rows,
        RANKS=_RANKS,
        LEAVES=leaves,
        num_warps=_WARPS,
        num_stages=1,
        maxnreg=registers,
        enable_fp_fusion=fuses,
    )


def aot_cases() -> list[AotCase]:
    numbers = ("n", "num_rows", "num_modules", "max_rank")
    strides = ("sums_stride", "low_stride", "out_stride", "residual_stride", "scaled_stride", "squares_stride")

    def case(name: str, out: str, act: int, scaled: str = "", fuses: bool = False, leaves: int = 1) -> AotCase:
        """scaled: what a norm is made of, where one is."""
        pointers = {"sums": "*fp32", "low": "*fp32", "b": "*fp32", "ranks": "*i32", "module_of": "*i32"}
        pointers |= {"slots": "*i32", "out": out, "bias": "*fp32", "residual": "*fp32"}
        if act:
            pointers["factors"] = "*fp32"
        if scaled:
            pointers |= OF_NORM | {"scaled": scaled}
        rows, registers = _OF_CODES if "*fp8e4nv" in (out, scaled) else _OF_NUMBERS
        constants: dict[str, Any] = {"ACT": act, "HAS_BIAS": leaves == 1, "HAS_RESIDUAL": not act and leaves == 1}
        constants |= {name: None for name in ("factors", *NORM_POINTERS[1:]) if name not in pointers}
        return AotCase(
            f"adapter_add.{name}",
            adapter_add_kernel,
            pointers | dict.fromkeys(("num_tokens", *numbers, *strides), "i32"),
            constants | {"TOKENS": _TOKENS, "ROWS": rows, "RANKS": _RANKS, "LEAVES": leaves},
            _WARPS,
            1,
            aligned=(*pointers, "n", "num_rows", *strides[:4]),
            max_registers=registers or 176,
            asked_registers=registers,
            max_shared=64 << 10,
            words={90: ("FFMA",)},
            architectures=(80, 90, 100) if scaled == "*bf16" else (90,),
            fp_fusion=fuses,
        )

    return [
        case("float32", "*fp32", 0, fuses=True),
        case("leaves", "*fp32", 0, leaves=4),
        case("norms", "*fp32", 0, "*bf16"),
        case("gated", "*bf16", 1),
        case("e4m3", "*fp8e4nv", 1),
        case("norms.e4m3", "*fp32", 0, "*fp8e4nv"),
    ]
