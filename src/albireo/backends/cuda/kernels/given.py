"""given: rows that come with a step, as an activation: out[t] = given[t]; or in place of some rows of an embedding:
out[t] = given[of_token[t]] * factor where of_token[t] is not below 0, and no other row is written.

given: [any, E] float32; of_token: [T] int32 or None; out: [T, E] float32; rows contiguous inside, any distance apart.
A program takes some columns of a row. Steps that bring rows are not padded.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

_BLOCK = 1024


@triton.jit
def given_kernel(given, of_token, out, given_stride, out_stride, cols, factor, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < cols
    source = row
    if of_token is not None:
        source = tl.load(of_token + row)
        mask = at < tl.where(source >= 0, cols, 0)
    value = tl.load(given + source.to(tl.int64) * given_stride + at, mask=mask, other=0.0)
    tl.store(out + row.to(tl.int64) * out_stride + at, value * factor, mask=mask)


def given(rows: torch.Tensor, out: torch.Tensor, of_token: torch.Tensor | None = None, factor: float = 1.0) -> None:
    """rows: what comes with the step."""
    cols = out.shape[1]
    given_kernel[(out.shape[0], triton.cdiv(cols, _BLOCK))](
        rows,
        of_token,
        out,
        rows.stride(0),
        out.stride(0),
        cols,
        factor,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = {"given_stride": "i32", "out_stride": "i32", "cols": "i32"}

    def case(name: str, more: dict[str, str], architectures: tuple[int, ...]) -> AotCase:
        return AotCase(
            f"given.{name}",
            given_kernel,
            {"given": "*fp32", "out": "*fp32", **more, **strides, "factor": "fp32"},
            {"BLOCK": _BLOCK} | ({} if "of_token" in more else {"of_token": None}),
            aligned=("given", "out", *strides),
            max_registers=40,
            max_shared=0,
            words={architecture: ("LDG.E.128", "STG.E.128") for architecture in architectures},
            architectures=architectures,
        )

    return [case("rows", {}, (90,)), case("of_tokens", {"of_token": "*i32"}, (80, 90, 100))]
