"""output_gate: out[i] = x[i] * f(gate[i]), with f silu or sigmoid; or n(x)[i] * f(gate[i]), with n a norm of each of
num_heads parts of a row: x[i, h] / sqrt(mean(x[i, h]^2) + eps) * weight; or n(x * f(gate))[i], with n the same of
parts of what is let through, and a weight of each column.

x, gate: [R, C] float32, C even; weight: [C / num_heads] float32, or None: no norm; where the norm is behind, [C]; out:
[R, C] of any compute type, which may be x or gate where it is float32. Rows any distance apart. Bits of the first are
those of head_norm, elementwise and a cast, one behind another. A program takes some heads of a row, or some columns; of
a norm behind one part, up to 16384 wide. A padding row is like others.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import sigmoid, silu
from albireo.backends.cuda.kernels.parts.heads import head_tile, load_heads, normalize, store_heads

#: Columns of a program where there are no heads, at most: what divides a row.
_COLUMNS = 512


@triton.jit
def output_gate_kernel(
    x,
    gate,
    weight,
    out,
    x_stride,
    gate_stride,
    out_stride,
    num_heads,
    eps,
    KIND: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BEHIND: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * HEADS
    a, b = load_heads(x + row * x_stride, first, num_heads, HEAD_DIM, HEADS, HALF)
    if weight is not None and not BEHIND:
        a, b = normalize(a, b, weight, eps, HEAD_DIM, HALF)
    gate_a, gate_b = load_heads(gate + row * gate_stride, first, num_heads, HEAD_DIM, HEADS, HALF)
    if KIND == "silu":
        a, b = a * silu(gate_a), b * silu(gate_b)
    else:
        a, b = a * sigmoid(gate_a), b * sigmoid(gate_b)
    if BEHIND:
        a, b = normalize(a, b, None, eps, HEAD_DIM, HALF)
        gain_a, gain_b = load_heads(weight, first, num_heads, HEAD_DIM, HEADS, HALF)
        a, b = a * gain_a, b * gain_b
    store_heads(out + row * out_stride, first, num_heads, a, b, HEAD_DIM, HEADS, HALF)


def output_gate(
    kind: str,
    x: torch.Tensor,
    gate: torch.Tensor,
    weight: torch.Tensor | None,
    out: torch.Tensor,
    num_heads: int,
    eps: float,
    is_behind: bool = False,
) -> None:
    """kind: silu or sigmoid. num_heads, eps: of the norm; without one they say nothing. is_behind: the norm is."""
    cols = x.shape[1]
    head_dim = math.gcd(cols, _COLUMNS) if weight is None else cols // num_heads
    heads, half = head_tile(head_dim, cols // head_dim)
    if is_behind:
        heads = 1
    output_gate_kernel[(x.shape[0], triton.cdiv(cols // head_dim, heads))](
        x,
        gate,
        weight,
        out,
        x.stride(0),
        gate.stride(0),
        out.stride(0),
        cols // head_dim,
        eps,
        KIND=kind,
        HEAD_DIM=head_dim,
        HEADS=heads,
        HALF=half,
        BEHIND=is_behind,
        num_warps=_warps(half),
        enable_fp_fusion=False,
    )


def _warps(half: int) -> int:
    """Eight numbers of either half a thread, at most."""
    return min(32, max(1, half // 256))


def aot_cases() -> list[AotCase]:
    signature = {"x": "*fp32", "gate": "*fp32", "out": "*bf16"}
    signature |= dict.fromkeys(("x_stride", "gate_stride", "out_stride", "num_heads"), "i32") | {"eps": "fp32"}

    def case(
        kind: str, head_dim: int, weight: dict[str, str], architectures: tuple[int, ...], is_behind: bool = False
    ) -> AotCase:
        heads, half = head_tile(head_dim, 1 if is_behind else 32)
        missing = {} if weight else {"weight": None}
        return AotCase(
            f"output_gate.{kind}{f'.behind.{head_dim}' * is_behind}",
            output_gate_kernel,
            signature | weight,
            {"KIND": kind, "HEAD_DIM": head_dim, "HEADS": heads, "HALF": half, "BEHIND": is_behind, **missing},
            num_warps=_warps(half),
            aligned=(*(name for name in signature if name not in ("num_heads", "eps")), *weight),
            max_registers=96,
            max_shared=2 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    weight = {"weight": "*fp32"}
    return [
        case("silu", 128, weight, (80, 90)),
        case("sigmoid", 512, {}, (100,)),
        # groups of Nemotron 3 Nano; all of a row of Granite 4 Small
        case("silu", 512, weight, (90,), True),
        case("silu", 8192, weight, (80, 90), True),
    ]
