"""elementwise: out[i, e] = f(x[i, e] [, y[i, e]]) in float32, with f one of cast, silu, gelu, gelu_tanh, relu, relu2,
sigmoid, scale (x * number), softcap (number * tanh(x / number)), scale_by (x * weight[0]), gain (x * weight[e]),
shift (x + weight[e]), clip (x between -number and number), clip_above (x, or number where that is less),
clamp (x between weight[0] and weight[1]), xielu (see graph.ops), add, mul, clamped_swiglu,
clipped_silu_mul (silu of x or number where that is less, times y between -number and number).

x, y: [R, E] of any floating type. out: [R, E] float32, bfloat16 or float16, which may be x or y; token rows (uint8,
or float8 e4m3; ../tokens.py). Columns are contiguous, rows any
distance apart. Numbers: a program takes some columns of a row; codes: a whole row, which is made for E up to 32768. A
padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import (
    clamped_swiglu,
    gelu,
    gelu_tanh,
    relu,
    relu2,
    sigmoid,
    silu,
    softcap,
    xielu,
)
from albireo.backends.cuda.kernels.parts.row_codes import output_tile, row_warps, store_row, tile_columns

#: The kinds, and whether they take y.
KINDS = dict.fromkeys(
    (
        *("cast", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "scale", "softcap", "scale_by", "clip"),
        *("clamp", "clip_above", "xielu", "gain", "shift"),
    ),
    False,
)
KINDS |= {"add": True, "mul": True, "clamped_swiglu": True, "clipped_silu_mul": True}


@triton.jit
def elementwise_kernel(
    x, y, out, weight, x_stride, y_stride, out_stride, cols, number, KIND: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tile_columns(tl.program_id(1) * BLOCK, BLOCK)
    mask = at < cols
    value = tl.load(x + row * x_stride + at, mask=mask, other=0.0).to(tl.float32)
    if y is not None:
        other = tl.load(y + row * y_stride + at, mask=mask, other=0.0).to(tl.float32)
        if KIND == "clamped_swiglu":
            value = clamped_swiglu(value, other)
        elif KIND == "clipped_silu_mul":
            value = silu(tl.minimum(value, number)) * tl.minimum(tl.maximum(other, -number), number)
        else:
            value = value + other if KIND == "add" else value * other
    if KIND == "silu":
        value = silu(value)
    if KIND == "gelu":
        value = gelu(value)
    if KIND == "relu":
        value = relu(value)
    if KIND == "relu2":
        value = relu2(value)
    if KIND == "gelu_tanh":
        value = gelu_tanh(value)
    if KIND == "sigmoid":
        value = sigmoid(value)
    if KIND == "scale":
        value = value * number
    if KIND == "scale_by":
        value = value * tl.load(weight)
    if KIND == "gain":
        value = value * tl.load(weight + at, mask=mask, other=0.0)
    if KIND == "shift":
        value = value + tl.load(weight + at, mask=mask, other=0.0)
    if KIND == "clip":
        value = tl.minimum(tl.maximum(value, -number), number)
    if KIND == "clip_above":
        value = tl.minimum(value, number)
    if KIND == "clamp":
        value = tl.minimum(tl.maximum(value, tl.load(weight)), tl.load(weight + 1))
    if KIND == "xielu":
        value = xielu(value, tl.load(weight), tl.load(weight + 1))
    if KIND == "softcap":
        value = softcap(value, number)
    store_row(out, row, out_stride, at, value, cols, BLOCK)


def elementwise(
    kind: str,
    x: torch.Tensor,
    y: torch.Tensor | None,
    out: torch.Tensor,
    cols: int,
    number: float = 1.0,
    weight: torch.Tensor | None = None,
) -> None:
    """kind: one of KINDS; y: of those that take it. cols: E, which a token row does not tell. number: of scale, softcap
    and what is clipped. weight: [1] float32, of scale_by; [2] of clamp and xielu; [E] of gain and shift.

    Raises: ValueError for another kind, or y given or missing where it should not be.
    """
    if KINDS.get(kind) is not (y is not None):
        raise ValueError(f"elementwise {kind!r} with{'' if y is not None else 'out'} y; there are {KINDS}")
    block, blocks = output_tile(out.dtype, cols)
    elementwise_kernel[(out.shape[0], blocks)](
        x,
        y,
        out,
        weight,
        x.stride(0),
        0 if y is None else y.stride(0),
        out.stride(0),
        cols,
        number,
        KIND=kind,
        BLOCK=block,
        num_warps=row_warps(block),
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = {"x_stride": "i32", "y_stride": "i32", "out_stride": "i32", "cols": "i32"}

    def case(name: str, kind: str, types: dict[str, str], block: int, architectures: tuple[int, ...]) -> AotCase:
        signature = {**types, **strides, "number": "fp32"}
        missing = {"weight": None} if "y" in types else {"y": None, "weight": None}
        return AotCase(
            f"elementwise.{name}",
            elementwise_kernel,
            signature,
            {"KIND": kind, "BLOCK": block, **missing},
            num_warps=row_warps(block),
            aligned=(*types, *strides),
            max_registers=64,
            max_shared=16 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    return [
        case("silu.bfloat16", "silu", {"x": "*fp32", "out": "*bf16"}, 1024, (80, 90, 100)),
        case("softcap.float32", "softcap", {"x": "*fp32", "out": "*fp32"}, 1024, (90,)),
        case("clipped.bfloat16", "clipped_silu_mul", {"x": "*fp32", "y": "*fp32", "out": "*bf16"}, 1024, (90,)),
        case("add.float32", "add", {"x": "*fp32", "y": "*fp32", "out": "*fp32"}, 1024, (90,)),
        case("cast.tokens.16384", "cast", {"x": "*bf16", "out": "*u8"}, 16384, (80,)),
        case("cast.e4m3.16384", "cast", {"x": "*bf16", "out": "*fp8e4nv"}, 16384, (90,)),
    ]
