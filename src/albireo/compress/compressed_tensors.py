"""The compressed-tensors layout: tensors of a matrix in few bits, and the quantization_config that says what they are.

Called by writer.py. As the compressed-tensors package (vLLM, transformers) reads it: int8 as int-quantized, int4 as
pack-quantized with zero points, fp8 as float-quantized. int4p.gG is written as int4.gG: its steps are whole multiples
of one number, and a reader who is told so finds them again (quantization.methods.progressive).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.encodings import Encoding, encoding
from albireo.errors import InvariantError
from albireo.quantization.encoded import Encoded
from albireo.quantization.methods.progressive import as_plain

_VERSION = "0.20.0"
#: File type of scales by the checkpoint's type: what methods.grid.SCALE_BITS fits into.
_SCALE_TYPES = {"bfloat16": "BF16", "float16": "F32", "float32": "F32"}

#: What may follow the name of a weight.
WEIGHT_PARTS = ("", "_packed", "_scale", "_zero_point", "_shape")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a safetensors file: its type there, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def stored(module: str, matrix: Encoded, dtype: str) -> dict[str, Stored]:
    """The tensors of a module's weight, by name. dtype: of the checkpoint."""
    if matrix.encoding.kind == "progressive":
        matrix = as_plain(matrix)
    codes, kind, bits = matrix.codes, matrix.encoding.kind, matrix.encoding.bits
    found = {f"{module}.weight_scale": _scale(matrix, dtype)}
    if kind == "float":
        found[f"{module}.weight"] = Stored("F8_E4M3", codes.shape, codes.tobytes())
    elif kind == "integer" and bits == 8:
        signed = (codes.astype(np.int16) - 128).astype(np.int8)
        found[f"{module}.weight"] = Stored("I8", codes.shape, signed.tobytes())
    elif kind == "integer":
        assert matrix.zero is not None
        found[f"{module}.weight_packed"] = _packed(codes)
        zeros = _packed(matrix.zero.T)
        words = np.frombuffer(zeros.data, np.int32).reshape(zeros.shape).T
        found[f"{module}.weight_zero_point"] = Stored("I32", words.shape, np.ascontiguousarray(words).tobytes())
        found[f"{module}.weight_shape"] = Stored("I64", (2,), np.asarray(codes.shape, "<i8").tobytes())
    else:
        raise InvariantError(f"{module}: {matrix.encoding} has no place in the compressed-tensors layout")
    return found


def quantization_config(
    modules: Mapping[str, Encoding], ignored: Sequence[str], is_weight_only: bool = False
) -> dict[str, Any]:
    """The quantization_config of config.json.

    Args: modules: names of linears and what they are stored in. ignored: linears that stay as they are.
        is_weight_only: activations beside e4m3 weights are to keep 16 bits.
    """
    groups: dict[str, list[str]] = {}
    for name, coding in modules.items():
        groups.setdefault(str(_plain(coding)), []).append(name)
    formats = {_format(encoding(name)) for name in groups}
    one = len(groups) == 1
    return {
        "config_groups": {
            f"group_{index}": {
                "targets": ["Linear"] if one else sorted(names),
                "weights": _arguments(encoding(name)),
                "input_activations": _activations(encoding(name), is_weight_only),
                "output_activations": None,
                "format": _format(encoding(name)),
            }
            for index, (name, names) in enumerate(sorted(groups.items()))
        },
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "global_compression_ratio": None,
        "ignore": list(ignored),
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "version": _VERSION,
    }


_TOKENS = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "strategy": "token",
    "group_size": None,
    "block_structure": None,
    "dynamic": True,
    "actorder": None,
    "observer": None,
    "observer_kwargs": {},
}


def _activations(coding: Encoding, is_weight_only: bool) -> dict[str, Any] | None:
    """What is to be done with activations, where codes are multiplied with codes."""
    if coding.kind == "float":
        return None if is_weight_only else _TOKENS | {"type": "float"}
    return _TOKENS if coding.bits == 8 and coding.group is None else None


def _arguments(coding: Encoding) -> dict[str, Any]:
    is_float = coding.kind == "float"
    return {
        "num_bits": coding.bits,
        "type": "float" if is_float else "int",
        "symmetric": coding.bits == 8,
        "strategy": "channel" if coding.group is None else "group",
        "group_size": coding.group,
        "block_structure": None,
        "dynamic": False,
        "actorder": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }


def _plain(coding: Encoding) -> Encoding:
    return encoding(f"int4.g{coding.group}") if coding.kind == "progressive" else coding


def _format(coding: Encoding) -> str:
    if coding.kind == "float":
        return "float-quantized"
    return "int-quantized" if coding.bits == 8 else "pack-quantized"


def _packed(codes: NDArray[np.uint8]) -> Stored:
    """[R, C] codes of 0 to 15, eight to a 32-bit word, the first in the lowest bits; rows padded with zeros."""
    rows, columns = codes.shape
    padded = np.zeros((rows, -(-columns // 8) * 8), np.uint8)
    padded[:, :columns] = codes
    words = np.ascontiguousarray(padded[:, ::2] | (padded[:, 1::2] << 4)).view("<i4")
    return Stored("I32", words.shape, words.tobytes())


def _scale(matrix: Encoded, dtype: str) -> Stored:
    """Raises: InvariantError for a scale that the file's type cannot hold; methods were told of it."""
    kind = _SCALE_TYPES[dtype]
    if kind == "F32":
        return Stored(kind, matrix.scale.shape, matrix.scale.astype("<f4").tobytes())
    bits = np.ascontiguousarray(matrix.scale, np.float32).view(np.uint32)
    if (bits & 0xFFFF).any():
        raise InvariantError(f"a scale of {matrix.encoding} is no bfloat16 number")
    return Stored(kind, matrix.scale.shape, (bits >> 16).astype("<u2").tobytes())
