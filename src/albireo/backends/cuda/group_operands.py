"""What kernels of weights whose inputs share scales in groups are told of a matrix: matmul_groups, moe_groups.

The kernels' aot_cases() say the same of a type alone. Does not know tiles.
"""

from __future__ import annotations

from typing import Any

import torch

from albireo.backends.cuda.kernels.parts.chain_groups import KINDS
from albireo.backends.cuda.kernels.parts.chain_nests import NESTED_KINDS
from albireo.backends.cuda.matrix import DeviceMatrix, high_bits, low_bits
from albireo.encodings import Encoding, encoding
from albireo.quantization.encoded import NUMBERS

#: Elements of as many bits as eight codes have.
_ELEMENTS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int8}
_ELEMENT_NAMES = {0: "*i8", 1: "*i8", 2: "*i16", 4: "*i32", 8: "*i8"}


def lies_in_words(e: Encoding) -> bool:
    """Whether codes lie in whole nests of 256 inputs, so a step of a kernel is one."""
    return e.bits < 8


def constants_of(e: Encoding, cols: int | None = None) -> dict[str, Any]:
    """Constants of a kernel. cols: of a matrix whose type has no groups."""
    return {"KIND": (KINDS | NESTED_KINDS)[e.kind], "GROUP": e.group or cols, **constants_of_codes(e)}


def constants_of_codes(e: Encoding) -> dict[str, Any]:
    """BITS: of a code. TABLE: the numbers that codes stand for, a byte each, in hexadecimal; none of other kinds. UNIT:
    what scales of a table are multiples of."""
    table, unit = NUMBERS[e.name] if e.kind == "nested table" else (None, 1.0)
    return {"BITS": e.bits, "TABLE": "" if table is None else table.tobytes().hex(), "UNIT": unit}


def pointers_of(e: Encoding) -> dict[str, str]:
    """Types of the pointers to a matrix, as Triton writes them."""
    number, of_groups = ("*fp16", "*i64") if e.is_nested else ("*fp32", "*u8")
    return {
        "codes": _ELEMENT_NAMES[low_bits(e)],
        "high": _ELEMENT_NAMES[high_bits(e)],
        "scale": number,
        "zero": of_groups,
        "offset": number,
        "gamma": of_groups,
    }


def operands_of(weight: DeviceMatrix, unused: torch.Tensor) -> dict[str, Any]:
    """Arguments of a kernel; unused: a tensor for those that the type has not, never read there."""
    e = encoding(weight.dtype)
    codes = weight.codes.view(_ELEMENTS[low_bits(e)])

    def or_unused(tensor: torch.Tensor | None) -> torch.Tensor:
        return unused if tensor is None else tensor

    def of_groups(tensor: torch.Tensor | None) -> torch.Tensor:
        """Of nests eight are read at once."""
        return or_unused(tensor if tensor is None or not e.is_nested else tensor.view(torch.int64))

    return {
        "codes": codes,
        "codes_stride": codes.stride(0),
        "high": weight.codes.view(_ELEMENTS[high_bits(e)]) if high_bits(e) else unused,
        "scale": weight.scale,
        "zero": of_groups(weight.zero),
        "offset": or_unused(weight.offset),
        "gamma": of_groups(weight.gamma),
        **constants_of(e, weight.cols),
    }
