"""add_streams: of parts j of a row, from `first` on, out[t, j] = x[t, j] + (coefs[t, j, 0] + plus) * y[t, 0] +
(coefs[t, j, 1] + plus) * y[t, 1] + ...; the parts before stay as they are in x.

x, out: [T, parts * W], y: [T, given * W], coefs: [T, parts * given] or None, which is zeros: all float32, rows any
distance apart, columns contiguous. out is x, or lies apart from x and y. Products are rounded, then added in the order
of y's parts: a row's bits depend on the row alone. A program has some columns of all parts, so that y is read once; a
padding row is like others. Source of the sums: Menghani et al. 2025, AltUp; Zhu et al. 2024, hyper-connections.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

#: Numbers of a program, in all parts together.
_NUMBERS = 1024


@triton.jit
def add_streams_kernel(
    x,
    y,
    coefs,
    out,
    x_stride,
    y_stride,
    coefs_stride,
    out_stride,
    width,
    plus,
    PARTS: tl.constexpr,
    GIVEN: tl.constexpr,
    FIRST: tl.constexpr,
    PART_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    part = tl.arange(0, PART_BLOCK)
    is_there = at < width
    mask = (part < PARTS)[:, None] & is_there[None, :]
    place = part[:, None] * width + at[None, :]
    total = tl.load(x + row * x_stride + place, mask=mask, other=0.0)
    for i in tl.static_range(GIVEN):
        by = tl.full((PART_BLOCK,), 0.0, tl.float32)
        if coefs is not None:
            by = tl.load(coefs + row * coefs_stride + part * GIVEN + i, mask=part < PARTS, other=0.0)
        by = tl.where(part >= FIRST, by + plus, 0.0)
        given = tl.load(y + row * y_stride + i * width + at, mask=is_there, other=0.0)
        # what is multiplied by no factor is not touched: infinities of y stay out of parts before the first
        total = tl.where((part >= FIRST)[:, None], total + by[:, None] * given[None, :], total)
    tl.store(out + row * out_stride + place, total, mask=mask)


def add_streams(
    x: torch.Tensor,
    y: torch.Tensor,
    coefs: torch.Tensor | None,
    out: torch.Tensor,
    num_parts: int,
    first: int,
    plus: float,
) -> None:
    width = x.shape[1] // num_parts
    parts, block = _tile(num_parts)
    add_streams_kernel[(x.shape[0], triton.cdiv(width, block))](
        x,
        y,
        coefs,
        out,
        x.stride(0),
        y.stride(0),
        0 if coefs is None else coefs.stride(0),
        out.stride(0),
        width,
        plus,
        PARTS=num_parts,
        GIVEN=y.shape[1] // width,
        FIRST=first,
        PART_BLOCK=parts,
        BLOCK=block,
        num_warps=4,
        enable_fp_fusion=False,
    )


def _tile(num_parts: int) -> tuple[int, int]:
    """Parts and columns of a program, powers of two."""
    parts = int(triton.next_power_of_2(num_parts))
    return parts, max(32, _NUMBERS // parts)


def aot_cases() -> list[AotCase]:
    numbers = ("x_stride", "y_stride", "coefs_stride", "out_stride", "width")

    def case(parts: int, given: int, first: int, architectures: tuple[int, ...], *, has_coefs: bool) -> AotCase:
        roles = ("x", "y", "out", *(("coefs",) if has_coefs else ()))
        part_block, block = _tile(parts)
        tile = {"PARTS": parts, "GIVEN": given, "FIRST": first, "PART_BLOCK": part_block, "BLOCK": block}
        return AotCase(
            f"add_streams.{given}_to_{parts}{'.coefs' * has_coefs}",
            add_streams_kernel,
            dict.fromkeys(roles, "*fp32") | dict.fromkeys(numbers, "i32") | {"plus": "fp32"},
            tile | ({} if has_coefs else {"coefs": None}),
            aligned=(*roles, *numbers),
            max_registers=64,
            max_shared=1 << 10,
            words={architecture: ("LDG.E.128", "STG.E.128") for architecture in architectures},
            architectures=architectures,
        )

    return [
        case(4, 4, 0, (80, 90, 100), has_coefs=True),
        case(4, 1, 0, (90,), has_coefs=True),
        case(1, 4, 0, (90,), has_coefs=True),
        case(4, 1, 1, (90,), has_coefs=False),
    ]
