"""Types of what kernels of linears are told where they are compiled ahead of time, as they are launched for models.

Used by aot_cases() of these, and of others that leave what a norm is made of.
"""

from __future__ import annotations

from albireo.backends.cuda.kernels.parts.weight_operands import is_of_4_bits

#: Pointers of norms inside linears, None where there is none.
NORM_POINTERS = ("row_squares", "gain", "scaled", "squares")
#: Types of those of what a norm is made of, from numbers and in codes; see row_squares.store_parts().
OF_NORM = {"gain": "*fp32", "scaled": "*bf16", "squares": "*fp32"}
OF_CODES = OF_NORM | {"scaled": "*fp8e4nv"}
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def pointer_types(dtype: str, act: int, levels: int) -> dict[str, str]:
    """Of matmul_smallm and matmul. levels: of a norm of x; without an activation one of out too."""
    types = {"x": f"*{_SHORT.get(dtype, 'bf16')}", "weight": f"*{_SHORT.get(dtype, 'i32')}", "scale": "*fp32"}
    types["zero"] = "*u8" if is_of_4_bits(dtype) else "*fp32"
    if levels:
        types |= {"row_squares": "*fp32"} | ({} if act else OF_NORM)
    return types | {"out": "*bf16" if act else "*fp32", "bias": "*fp32", "residual": "*fp32"}


def e4m3_pointer_types(act: int, levels: int) -> dict[str, str]:
    """Of matmul_e4m3_smallm and matmul_e4m3. levels: of a norm of x; without an activation of one of out instead."""
    types = {"x": "*fp8e4nv", "x_scales": "*fp32", "weight": "*fp8e4nv", "scale": "*fp32"}
    types |= {"out": "*fp8e4nv" if act else "*fp32", "bias": "*fp32", "residual": "*fp32", "counters": "*i32"}
    return types | OF_CODES if levels and not act else types
