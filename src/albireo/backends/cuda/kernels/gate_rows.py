"""gate_rows: out[t] = sigmoid(gate[t]) * x[t], and residual[t] behind it, in float32.

x: [T, N], gate: [T, 1], residual: [T, N] or None, out: [T, N], may be residual: all float32, rows contiguous inside.
The product is rounded, then added. A padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import sigmoid

_BLOCK = 512


@triton.jit
def gate_rows_kernel(
    x, gate, residual, out, x_stride, gate_stride, residual_stride, out_stride, cols, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < cols
    value = sigmoid(tl.load(gate + row * gate_stride)) * tl.load(x + row * x_stride + at, mask=mask, other=0.0)
    if residual is not None:
        value = tl.load(residual + row * residual_stride + at, mask=mask, other=0.0) + value
    tl.store(out + row * out_stride + at, value, mask=mask)


def gate_rows(x: torch.Tensor, gate: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None) -> None:
    num_tokens, cols = out.shape
    gate_rows_kernel[(num_tokens, triton.cdiv(cols, _BLOCK))](
        x,
        gate,
        residual,
        out,
        x.stride(0),
        gate.stride(0),
        0 if residual is None else residual.stride(0),
        out.stride(0),
        cols,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    pointers = dict.fromkeys(("x", "gate", "residual", "out"), "*fp32")
    numbers = ("x_stride", "gate_stride", "residual_stride", "out_stride", "cols")
    return [
        AotCase(
            "gate_rows",
            gate_rows_kernel,
            pointers | dict.fromkeys(numbers, "i32"),
            {"BLOCK": _BLOCK},
            aligned=(*pointers, *(name for name in numbers if name != "gate_stride")),
            max_registers=40,
            max_shared=1 << 10,
            words={architecture: ("LDG.E.128",) for architecture in (80, 90, 100)},
        )
    ]
