"""NVFP4: numbers e2m1 in groups of 16 with an e4m3 scale each and a float32 for the whole tensor.

It becomes fp4.g16, bit by bit; the float is written once more for each row. Checkpoints that round activations to four
bits as well (W4A4) hold their weights alike; what they scale activations by is not used.

    codes    U8 [N, K / 2]        ModelOpt: X.weight           compressed-tensors: X.weight_packed
    scales   F8_E4M3 [N, K / 16]            X.weight_scale                         X.weight_scale
    float    F32 [] or [1]                  X.weight_scale_2                       X.weight_global_scale

The low half of a byte comes first. weight_scale_2 is multiplied with, weight_global_scale divided by.
compressed_tensors.py reads its own with nvfp4_matrix(), modelopt.py comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from albireo.encodings import encoding
from albireo.errors import WeightMismatch, short
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.arrays import array, checked_e4m3, finite, floats, nibbles
from albireo.quantization.formats.left_out import LeftOut
from albireo.quantization.formats.matrix import (
    Matrix,
    Plan,
    StoredTensors,
    matrix_shape,
    modules_with,
    require,
    unread_scales,
)

_ENCODING, _GROUP = "fp4.g16", 16


@dataclass(frozen=True, slots=True)
class Nvfp4:
    """As ModelOpt writes it. Fields: left_out: what lies as numbers."""

    left_out: LeftOut

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        return None if module in self.left_out else _ENCODING

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan(unread=unread_scales(stored))
        for module in modules_with(stored, "weight_scale_2"):
            plan.add(nvfp4_matrix(stored, module, "weight", "weight_scale_2", is_divisor=False))
        return plan


def nvfp4_matrix(stored: StoredTensors, module: str, packed: str, tensor_scale: str, is_divisor: bool) -> Matrix:
    """The matrix module.weight. Args: packed, tensor_scale: parts of its name. Raises: WeightMismatch."""
    codes = require(stored, f"{module}.{packed}", ("U8",))
    n, pairs = matrix_shape(stored, codes)
    if 2 * pairs % _GROUP:
        raise WeightMismatch(f"tensor {short(codes)} is {[n, pairs]}; groups of 16 numbers take 8 bytes")
    scales = require(stored, f"{module}.weight_scale", ("F8_E4M3",), (n, 2 * pairs // _GROUP))
    whole = require(stored, f"{module}.{tensor_scale}", ("F32",))
    if stored.shape(whole) not in ((), (1,)):
        raise WeightMismatch(f"tensor {short(whole)} is {list(stored.shape(whole))}; it must be one number")
    names = (codes, scales, whole)
    return Matrix(f"{module}.weight", (n, 2 * pairs), _ENCODING, names, partial(_read, stored, *names, is_divisor))


def _read(stored: StoredTensors, codes: str, scales: str, whole: str, is_divisor: bool) -> Encoded:
    numbers = nibbles(array(stored, codes).astype(np.uint8))
    gamma = checked_e4m3(array(stored, scales).astype(np.uint8), scales)
    scale = floats(stored, whole).reshape(1, 1)
    if is_divisor:
        with np.errstate(divide="ignore"):
            scale = finite(np.float32(1) / scale, whole)
    return Encoded(encoding(_ENCODING), numbers, np.repeat(scale, len(numbers), axis=0), gamma=gamma)
