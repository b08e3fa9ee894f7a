"""gated: out[i, e] = f(gate[i, e]) * up[i, e] in float32, with f silu or gelu_tanh, where gate and up come interleaved.

x: [R, 2 * F rounded up] of any floating type: GATE_UP_INTERLEAVE columns of gate, as many of up, in turn; F = n need be
no multiple of that. out: [R, F] float32, bfloat16 or float16; token rows (uint8, or float8 e4m3; ../tokens.py). Columns
are contiguous, rows any distance apart. Numbers: a program takes some columns of a row; codes: a whole row, which is
made for F up to 32768. A padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import gelu_tanh, silu
from albireo.backends.cuda.kernels.parts.row_codes import output_tile, row_warps, store_row, tile_columns
from albireo.graph.program import GATE_UP_INTERLEAVE

#: What f may be, as linears name it.
ACTS = ("silu_mul", "gelu_tanh_mul")


@triton.jit
def gated_kernel(x, out, x_stride, out_stride, cols, ACT: tl.constexpr, INTERLEAVE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tile_columns(tl.program_id(1) * BLOCK, BLOCK)
    mask = at < cols
    gate_at = x + row * x_stride + at // INTERLEAVE * (2 * INTERLEAVE) + at % INTERLEAVE
    gate = tl.load(gate_at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_at + INTERLEAVE, mask=mask, other=0.0).to(tl.float32)
    value = (silu(gate) if ACT == "silu_mul" else gelu_tanh(gate)) * up
    store_row(out, row, out_stride, at, value, cols, BLOCK)


def gated(x: torch.Tensor, out: torch.Tensor, act: str, n: int) -> None:
    """act: one of ACTS; n: F, which a token row does not tell. Raises: ValueError for another act."""
    if act not in ACTS:
        raise ValueError(f"gated {act!r}; there are {', '.join(ACTS)}")
    block, blocks = output_tile(out.dtype, n)
    gated_kernel[(out.shape[0], blocks)](
        x,
        out,
        x.stride(0),
        out.stride(0),
        n,
        ACT=act,
        INTERLEAVE=GATE_UP_INTERLEAVE,
        BLOCK=block,
        num_warps=row_warps(block),
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    def case(name: str, act: str, out: str, block: int, registers: int, architectures: tuple[int, ...]) -> AotCase:
        signature = {"x": "*fp32", "out": out, "x_stride": "i32", "out_stride": "i32", "cols": "i32"}
        return AotCase(
            f"gated.{name}",
            gated_kernel,
            signature,
            {"ACT": act, "INTERLEAVE": GATE_UP_INTERLEAVE, "BLOCK": block},
            num_warps=row_warps(block),
            aligned=tuple(signature),
            max_registers=registers,
            max_shared=16 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    return [
        case("silu.bfloat16", "silu_mul", "*bf16", 1024, 48, (80, 90, 100)),
        case("silu.tokens.16384", "silu_mul", "*u8", 16384, 64, (80,)),
        case("gelu_tanh.tokens.32768", "gelu_tanh_mul", "*u8", 32768, 64, (90,)),
    ]
