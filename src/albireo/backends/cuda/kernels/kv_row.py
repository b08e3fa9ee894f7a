"""kv_row: keys of one KV head to the KV cache, rounded to its type: a row normed, rotated, and with others behind it.

x: [T, D - N] float32, tail: [T, N] float32 or None (N is 0), D and N even, rows any distance apart. norm: of x. table:
[positions, 2, .] float32, cosines then sines, or None: nothing is rotated; turns: [T] int32, its rows: tail is rotated,
where there is one, else all of x. Pairs of channels are (i, i + half), or side by side. slots, positions: [T] int32.
kv: numbers, of keys alone. Entries of several positions: as kv_write. A program has a row; a padding row has slot 0 and
writes the null block. Bits depend on the row alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.heads import (
    centered,
    load_heads,
    load_pairs,
    normalize,
    rotate,
    store_heads,
    store_pairs,
)
from albireo.backends.cuda.kv import LayerKV
from albireo.errors import InvariantError


@triton.jit
def _loaded(row, first, DIM: tl.constexpr, HALF: tl.constexpr, PAIRS: tl.constexpr):
    if PAIRS:
        return load_pairs(row, first, 1, DIM, 1, HALF)
    else:
        return load_heads(row, first, 1, DIM, 1, HALF)


@triton.jit
def _store(row, first, a, b, DIM: tl.constexpr, HALF: tl.constexpr, PAIRS: tl.constexpr):
    if PAIRS:
        store_pairs(row, first, 1, a, b, DIM, 1, HALF)
    else:
        store_heads(row, first, 1, a, b, DIM, 1, HALF)


@triton.jit
def kv_row_kernel(
    x,
    tail,
    weight,
    bias,
    table,
    turns,
    positions,
    slots,
    cache,
    x_stride,
    tail_stride,
    block_size,
    eps,
    DIM: tl.constexpr,
    TAIL: tl.constexpr,
    HALF: tl.constexpr,
    TAIL_HALF: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    NORMED: tl.constexpr,
    CENTERED: tl.constexpr,
    PAIRS: tl.constexpr,
    EVERY: tl.constexpr,
    ENTRIES: tl.constexpr,
    APART: tl.constexpr,
):
    """DIM, TAIL: numbers of x and of tail. EVERY, ENTRIES, APART: as in kv_write."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row)
    # of a row that ends no entry there are heads behind the last one
    first = tl.where((tl.load(positions + row) + 1) % EVERY == 0, 0, 1)
    place = slot % block_size // (block_size // ENTRIES)
    to = cache + (slot // block_size).to(tl.int64) * APART + place * PADDED_DIM
    a, b = _loaded(x + row * x_stride, first, DIM, HALF, PAIRS)
    if CENTERED:
        a, b = centered(a, b, DIM, HALF)
    if NORMED:
        a, b = normalize(a, b, None, eps, DIM, HALF)
    if weight is not None:
        more_a, more_b = _loaded(weight, 0, DIM, HALF, PAIRS)
        a, b = a * more_a, b * more_b
    if bias is not None:
        more_a, more_b = _loaded(bias, 0, DIM, HALF, PAIRS)
        a, b = a + more_a, b + more_b
    if (table is not None) & (TAIL == 0):
        a, b = rotate(a, b, table, tl.load(turns + row), DIM, HALF)
    _store(to, first, a, b, DIM, HALF, PAIRS)
    if TAIL > 0:
        a, b = _loaded(tail + row * tail_stride, first, TAIL, TAIL_HALF, PAIRS)
        if table is not None:
            a, b = rotate(a, b, table, tl.load(turns + row), TAIL, TAIL_HALF)
        _store(to + DIM, first, a, b, TAIL, TAIL_HALF, PAIRS)


@dataclass(frozen=True, slots=True)
class RowNorm:
    """A row over the root of its mean square. Fields: weight, bias: [E] float32; is_centered: its mean goes first."""

    eps: float
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    is_centered: bool = False


@dataclass(frozen=True, slots=True)
class RowTurns:
    """What a row is rotated by. Fields: table: [positions, 2, .] float32, cosines then sines; rows: [T] int32 of it."""

    table: torch.Tensor
    rows: torch.Tensor
    side_by_side: bool = False


def kv_row(
    x: torch.Tensor,
    tail: torch.Tensor | None,
    norm: RowNorm | None,
    turns: RowTurns | None,
    positions: torch.Tensor,
    slots: torch.Tensor,
    kv: LayerKV,
) -> None:
    """Raises: InvariantError for a cache of codes, or of several heads."""
    if kv.k_scale is not None or kv.k.shape[1] != 1:
        raise InvariantError(f"rows that are normed on their way are keys of one head, as numbers: {kv.k.shape}")
    width, behind = x.shape[1], 0 if tail is None else tail.shape[1]
    kv_row_kernel[(x.shape[0],)](
        x,
        tail,
        None if norm is None else norm.weight,
        None if norm is None else norm.bias,
        None if turns is None else turns.table,
        None if turns is None else turns.rows,
        positions,
        slots,
        kv.k,
        x.stride(0),
        0 if tail is None else tail.stride(0),
        kv.block_size or kv.k.shape[2],
        0.0 if norm is None else norm.eps,
        DIM=width,
        TAIL=behind,
        HALF=triton.next_power_of_2(width // 2),
        TAIL_HALF=triton.next_power_of_2(max(1, behind // 2)),
        PADDED_DIM=kv.k.shape[3],
        NORMED=norm is not None,
        CENTERED=norm is not None and norm.is_centered,
        PAIRS=turns is not None and turns.side_by_side,
        EVERY=kv.every,
        ENTRIES=kv.k.shape[2],
        APART=kv.k.stride(0),
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    arrays = {"x": "*fp32", "positions": "*i32", "slots": "*i32", "cache": "*bf16"}
    arrays |= dict.fromkeys(("x_stride", "tail_stride", "block_size"), "i32") | {"eps": "fp32"}
    tables = {"weight": "*fp32", "table": "*fp32", "turns": "*i32"}

    def case(name: str, more: dict[str, str], architectures: tuple[int, ...], **shape: int) -> AotCase:
        told = arrays | more
        sizes = {"TAIL": 0, "TAIL_HALF": 1, "HALF": triton.next_power_of_2(shape["DIM"] // 2), "NORMED": True}
        sizes |= {"CENTERED": "bias" in more, "PAIRS": False, "EVERY": 1, "ENTRIES": 16} | shape
        return AotCase(
            f"kv_row.{name}",
            kv_row_kernel,
            told,
            sizes | {role: None for role in ("tail", "weight", "bias", "table", "turns") if role not in told},
            num_warps=1,
            aligned=tuple(
                role for role in ("x", "tail", "cache", "weight", "table", "x_stride", "tail_stride") if role in told
            ),
            max_registers=128,
            max_shared=4 << 10,
            architectures=architectures,
        )

    latent = {"DIM": 512, "TAIL": 64, "TAIL_HALF": 32, "PADDED_DIM": 576, "APART": 16 * 576}
    entries = {"DIM": 512, "PADDED_DIM": 512, "APART": 65536, "EVERY": 4, "ENTRIES": 4, "PAIRS": True}
    chosen = {"DIM": 128, "PADDED_DIM": 128, "APART": 16 * 128}
    return [
        case("latent", {"tail": "*fp32", **tables}, (80, 90, 100), **latent),
        case("entries", tables, (90, 100), **entries),
        case("keys", {"bias": "*fp32", **tables}, (90,), **chosen),
    ]
