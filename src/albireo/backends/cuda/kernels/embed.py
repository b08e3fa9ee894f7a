"""embed: out[t] = table[ids[t]] * factor, in float32.

ids: [T] int32, each below the table's rows; table: [V, E], of numbers or in any encoding (matrix.py), row contiguous;
out: [T, E] float32. Of an affine encoding a number is code * scale + offset of the codes as they lie in the table. A
program takes some columns of a row; a padding row has id 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.group_operands import constants_of_codes
from albireo.backends.cuda.kernels.parts.chain_nests import nested_number
from albireo.backends.cuda.kernels.parts.microscaled import from_gamma
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix
from albireo.encodings import NEST, encoding, is_encoding

_BLOCK = 1024
_NEST = tl.constexpr(NEST)


@triton.jit
def embed_kernel(
    ids,
    codes,
    scale,
    zero,
    offset,
    gamma,
    out,
    codes_stride,
    group_stride,
    out_stride,
    cols,
    factor,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    TABLE: tl.constexpr,
    UNIT: tl.constexpr,
    PLANE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < cols
    source = tl.load(ids + row).to(tl.int64)
    codes += source * codes_stride
    if FORM == "nibbles" or FORM == "e2m1":
        byte = at // 256 * 128 + at % PLANE * 4 + at // (2 * PLANE) % 4
        code = tl.load(codes + byte, mask=mask, other=0).to(tl.int32)
        code = (code >> (at // PLANE % 2 * 4)) & 15
        value = code.to(tl.float32)
        if FORM == "e2m1":
            value = _from_e2m1(code)
    elif FORM == "e4m3":
        byte = at // 128 * 128 + at % PLANE * 4 + at // PLANE % 4
        value = _from_e4m3(tl.load(codes + byte, mask=mask, other=0))
    elif FORM != "nested":
        value = tl.load(codes + at, mask=mask, other=0).to(tl.float32)
    if FORM == "nested":
        code = _nested_code(codes, at, mask, BITS, PLANE)
        group = at // GROUP
        of_group = ((group // 8).to(tl.int64) * group_stride + source) * 8 + group % 8
        of_nest = source + (at // _NEST).to(tl.int64) * group_stride
        by = tl.load(gamma + of_group, mask=mask, other=0).to(tl.float32)
        nest = tl.load(scale + of_nest, mask=mask, other=0.0).to(tl.float32) * UNIT
        if offset is not None:
            less = tl.load(zero + of_group, mask=mask, other=0).to(tl.float32)
            value = code.to(tl.float32) * (by * nest)
            value += less * tl.load(offset + of_nest, mask=mask, other=0.0).to(tl.float32)
        else:
            value = nested_number(code, BITS, TABLE).to(tl.float32) * (by * nest)
    elif scale is not None:
        of_group = source + (at // GROUP).to(tl.int64) * group_stride
        if zero is not None:
            value -= tl.load(zero + of_group, mask=mask, other=0).to(tl.float32)
        if FORM == "e2m1":
            value *= from_gamma(tl.load(gamma + of_group, mask=mask, other=0), GROUP)
            value *= tl.load(scale + source)
        elif gamma is not None:
            value *= tl.load(gamma + of_group, mask=mask, other=0).to(tl.float32)
            value *= tl.load(scale + source)
        else:
            value *= tl.load(scale + of_group, mask=mask, other=0.0)
        if offset is not None:
            value += tl.load(offset + of_group, mask=mask, other=0.0)
    tl.store(out + row.to(tl.int64) * out_stride + at, value * factor, mask=mask)


@triton.jit
def _nested_code(codes, at, mask, BITS: tl.constexpr, PLANE: tl.constexpr):
    """Codes of nests, in int32; see matrix.py."""
    LOW: tl.constexpr = 4 if BITS >= 4 else 2
    HIGH: tl.constexpr = BITS - LOW
    nest, element, plane = codes + at // _NEST * (PLANE * BITS), at % PLANE, at // PLANE % (_NEST // PLANE)
    low = tl.load(nest + element * LOW + plane * LOW // 8, mask=mask, other=0).to(tl.int32)
    code = (low >> (plane * LOW % 8)) & ((1 << LOW) - 1)
    if HIGH > 0:
        above = tl.load(nest + PLANE * LOW + element * HIGH + plane * HIGH // 8, mask=mask, other=0).to(tl.int32)
        code |= ((above >> (plane * HIGH % 8)) & ((1 << HIGH) - 1)) << LOW
    return code


@triton.jit
def _from_e2m1(code):
    """Exponent and mantissa in a float32's places stand for 2^-126 of the numbers."""
    return (((code & 7) << 22) | ((code & 8) << 28)).to(tl.float32, bitcast=True) * 8.507059173023462e37


@triton.jit
def _from_e4m3(code):
    """The numbers of e4m3fn codes in uint8, on every GPU: their bits in a float32's places stand for 2^-120 of them."""
    bits = code.to(tl.int32)
    bits = tl.where((bits & 0x7F) == 0x7F, 0x7FC00000, ((bits & 0x7F) << 20) | ((bits & 0x80) << 24))
    return bits.to(tl.float32, bitcast=True) * 1.329227995784916e36


def embed(ids: torch.Tensor, table: DeviceMatrix, out: torch.Tensor, factor: float = 1.0) -> None:
    codes, form, group, nested = table.codes, "numbers", table.cols, {"BITS": 0, "TABLE": "", "UNIT": 1.0}
    if is_encoding(table.dtype):
        how = encoding(table.dtype)
        group = how.group or table.cols
        if how.is_nested:
            form, nested = "nested", constants_of_codes(how)
        elif how.kind == "microscaled":
            form = "e2m1"
        elif how.bits == 4:
            form = "nibbles"
        elif how.kind == "float":
            codes, form = codes.view(torch.uint8), "e4m3"
    cols = out.shape[1]
    embed_kernel[(out.shape[0], triton.cdiv(cols, _BLOCK))](
        ids,
        codes,
        table.scale,
        table.zero,
        table.offset,
        table.gamma,
        out,
        codes.stride(0),
        table.rows,
        out.stride(0),
        cols,
        factor,
        FORM=form,
        GROUP=group,
        **nested,
        PLANE=PLANE,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = {"codes_stride": "i32", "group_stride": "i32", "out_stride": "i32", "cols": "i32"}

    def case(name: str, form: str, group: int, types: dict[str, str], architectures: tuple[int, ...]) -> AotCase:
        nested = constants_of_codes(encoding(name)) if form == "nested" else {"BITS": 0, "TABLE": "", "UNIT": 1.0}
        missing = {role: None for role in ("scale", "zero", "offset", "gamma") if role not in types}
        return AotCase(
            f"embed.{name}",
            embed_kernel,
            {"ids": "*i32", "out": "*fp32", **types, **strides, "factor": "fp32"},
            {"FORM": form, "GROUP": group, **nested, "PLANE": PLANE, "BLOCK": _BLOCK, **missing},
            aligned=("codes", "out", *strides),
            max_registers=64,
            max_shared=8 << 10,
            words={architecture: ("STG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    return [
        case("bfloat16", "numbers", 4096, {"codes": "*bf16"}, (80, 90, 100)),
        case("fp8.g128", "e4m3", 128, {"codes": "*u8", "scale": "*fp32"}, (80,)),
        case("fp4.g16", "e2m1", 16, {"codes": "*u8", "scale": "*fp32", "gamma": "*u8"}, (90,)),
        case("int4p.g128", "nibbles", 128, {"codes": "*u8", "scale": "*fp32", "zero": "*u8", "gamma": "*u8"}, (90,)),
        case("q6_k", "nested", 16, {"codes": "*u8", "scale": "*fp16", "gamma": "*u8"}, (90,)),
    ]
