"""mix_streams: n residual streams, each a sum of all by the matrix of its row, or as it is, with what a block made
added by a number of its own: out[t, j] = sum over i of matrix[t, j, i] * x[t, i] + (coefs[t, j] * factor + plus) *
y[t].

x, out: [T, n * E], y: [T, E], coefs: [T, n], matrix: [T, n * n] or None: all float32, rows any distance apart, columns
contiguous; out lies apart from what is read. Products are rounded, then added in the order of i, then y: a row's bits
depend on the row alone. A program has some columns of all streams; a padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

#: Columns of a program, of all streams.
_COLUMNS = 512


@triton.jit
def mix_streams_kernel(
    x,
    y,
    coefs,
    matrix,
    out,
    x_stride,
    y_stride,
    coefs_stride,
    matrix_stride,
    out_stride,
    width,
    factor,
    plus,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < width
    x += row * x_stride
    made = tl.load(y + row * y_stride + at, mask=is_there, other=0.0)
    for j in tl.static_range(COUNT):
        if matrix is None:
            total = tl.load(x + j * width + at, mask=is_there, other=0.0)
        else:
            total = tl.zeros((BLOCK,), tl.float32)
            for i in tl.static_range(COUNT):
                by = tl.load(matrix + row * matrix_stride + j * COUNT + i)
                total += by * tl.load(x + i * width + at, mask=is_there, other=0.0)
        total += (tl.load(coefs + row * coefs_stride + j) * factor + plus) * made
        tl.store(out + row * out_stride + j * width + at, total, mask=is_there)


def mix_streams(
    x: torch.Tensor,
    y: torch.Tensor,
    coefs: torch.Tensor,
    matrix: torch.Tensor | None,
    out: torch.Tensor,
    factor: float,
    plus: float,
) -> None:
    width, count = y.shape[1], coefs.shape[1]
    mix_streams_kernel[(len(x), triton.cdiv(width, _COLUMNS))](
        x,
        y,
        coefs,
        matrix,
        out,
        x.stride(0),
        y.stride(0),
        coefs.stride(0),
        0 if matrix is None else matrix.stride(0),
        out.stride(0),
        width,
        factor,
        plus,
        COUNT=count,
        BLOCK=_COLUMNS,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    numbers = ("x_stride", "y_stride", "coefs_stride", "matrix_stride", "out_stride", "width")

    def case(name: str, has_matrix: bool, architectures: tuple[int, ...]) -> AotCase:
        arrays = ("x", "y", "coefs", "out", *(("matrix",) if has_matrix else ()))
        shape = {"COUNT": 4, "BLOCK": _COLUMNS}
        return AotCase(
            f"mix_streams.{name}",
            mix_streams_kernel,
            dict.fromkeys(arrays, "*fp32") | dict.fromkeys(numbers, "i32") | {"factor": "fp32", "plus": "fp32"},
            shape | ({} if has_matrix else {"matrix": None}),
            aligned=(*arrays, *numbers),
            max_registers=64,
            max_shared=1 << 10,
            words=dict.fromkeys(architectures, ("LDG.E.128", "STG.E.128")),
            architectures=architectures,
        )

    return [case("mixed", True, (80, 90, 100)), case("apart", False, (90,))]
