"""gate_rows: out[t, h] = sigmoid(gate[t, h]) * x[t, h], and residual[t, h] behind it, of parts h of a row, in float32.

x: [T, N], gate: [T, parts], residual: [T, N] or None, out: [T, N], may be residual: all float32, rows contiguous
inside. is_softplus: of the gate, in the sigmoid's place.
The product is rounded, then added. A padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import sigmoid, softplus

_BLOCK = 512


@triton.jit
def gate_rows_kernel(
    x, gate, residual, out, x_stride, gate_stride, residual_stride, out_stride, cols, width,
    HAS_PARTS: tl.constexpr, IS_SOFTPLUS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < cols
    if HAS_PARTS:
        by = tl.load(gate + row * gate_stride + at // width, mask=mask, other=0.0)
    else:
        by = tl.load(gate + row * gate_stride)
    by = softplus(by) if IS_SOFTPLUS else sigmoid(by)
    value = by * tl.load(x + row * x_stride + at, mask=mask, other=0.0)
    if residual is not None:
        value = tl.load(residual + row * residual_stride + at, mask=mask, other=0.0) + value
    tl.store(out + row * out_stride + at, value, mask=mask)


def gate_rows(
    x: torch.Tensor,
    gate: torch.Tensor,
    out: torch.Tensor,
    residual: torch.Tensor | None,
    is_softplus: bool = False,
) -> None:
    num_tokens, cols = out.shape
    parts = gate.shape[1]
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
        cols // parts,
        HAS_PARTS=parts > 1,
        IS_SOFTPLUS=is_softplus,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    pointers = dict.fromkeys(("x", "gate", "residual", "out"), "*fp32")
    numbers = ("x_stride", "gate_stride", "residual_stride", "out_stride", "cols", "width")
    return [
        AotCase(
            name,
            gate_rows_kernel,
            pointers | dict.fromkeys(numbers, "i32"),
            {"HAS_PARTS": has_parts, "IS_SOFTPLUS": is_softplus, "BLOCK": _BLOCK},
            aligned=(*pointers, *(each for each in numbers if each != "gate_stride")),
            max_registers=64 if has_parts else 40,
            max_shared=1 << 10,
            words={architecture: ("LDG.E.128",) for architecture in (80, 90, 100)},
        )
        for name, has_parts, is_softplus in (
            ("gate_rows", False, False),
            ("gate_rows.parts", True, False),
            ("gate_rows.parts.softplus", True, True),
        )
    ]
