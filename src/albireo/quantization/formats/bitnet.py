"""BitNet b1.58: every number of a matrix is -1, 0 or 1 times one number of the matrix. Read as encoding int8, whose
codes are those three, so that activations have 8 bits a token, as such models were trained.

    offline     X.weight U8 [N / 4, K], X.weight_scale [1]: a byte has a row of each quarter of the rows, in bits 2q and
                2q + 1 that of quarter q, plus 1. Of linear_class autobitlinear they are times the scale, of bitlinear
                divided by it
    online      X.weight as numbers [N, K]: w / s, rounded and kept between -1 and 1, times s, the mean of |w|
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import F32, U8, Encoded
from albireo.quantization.formats.arrays import FLOATS, array, floats
from albireo.quantization.formats.grouping import integer_matrix
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, matrix_shape, require

#: Rows in a byte.
_QUARTERS = 4
#: Of scales, as transformers keeps them from 0.
_LEAST = np.float32(1e-5)
_MIDDLE = 128


@dataclass(frozen=True, slots=True)
class BitNet:
    """Fields: is_online: matrices lie as numbers. divides: by scales, where they do not. left_out: what is no such
    matrix."""

    is_online: bool
    divides: bool
    left_out: LeftOut

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        return "int8" if module.endswith("_proj") and module not in self.left_out else None

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan()
        for name in stored.names:
            module = name.removesuffix(".weight")
            if module != name and self.foreseen(module):
                plan.add(self._matrix(stored, module))
        return plan

    def _matrix(self, stored: StoredTensors, module: str) -> Matrix:
        name, scale = f"{module}.weight", f"{module}.weight_scale"
        if self.is_online:
            require(stored, name, FLOATS)
            return Matrix(name, matrix_shape(stored, name), "int8", (name,), partial(_rounded, stored, name))
        rows, columns = matrix_shape(stored, require(stored, name, ("U8",)))
        require(stored, scale, FLOATS, () if scale in stored and stored.shape(scale) == () else (1,))
        read = partial(_unpacked, stored, name, scale, self.divides)
        return Matrix(name, (_QUARTERS * rows, columns), "int8", (name, scale), read)


def parse(fields: Fields) -> BitNet:
    """Raises: ModelError, UnsupportedModel."""
    kind, mode = fields.text("linear_class", "bitlinear"), fields.text("quantization_mode", "offline")
    if kind not in ("bitlinear", "autobitlinear"):
        fields.unsupported("linear_class", kind, "supported: bitlinear, autobitlinear")
    if mode not in ("offline", "online"):
        fields.unsupported("quantization_mode", mode, "supported: offline, online")
    if mode == "online" and kind == "bitlinear":
        fields.unsupported("quantization_mode", mode, "of linear_class bitlinear matrices lie packed: offline")
    left_out = parse_left_out(fields, "modules_to_not_convert")
    fields.refuse_unread(keys("quant_method rms_norm_eps"), {"use_rms_norm": (False,)})
    return BitNet(mode == "online", kind == "bitlinear", left_out)


def _unpacked(stored: StoredTensors, name: str, scale_name: str, divides: bool) -> Encoded:
    packed, scale = array(stored, name).astype(np.uint8), floats(stored, scale_name).reshape(-1)[:1]
    codes = np.concatenate([packed >> np.uint8(2 * quarter) & np.uint8(3) for quarter in range(_QUARTERS)])
    if (codes == 3).any():
        place = [int(i) for i in np.argwhere(codes == 3)[0]]
        raise WeightMismatch(f"tensor {short(name)} holds code 3 at {place} of the matrix; codes must be 0, 1 or 2")
    if scale[0] <= 0:
        raise WeightMismatch(f"tensor {short(scale_name)} holds {scale[0]}; a scale must be above 0")
    return _encoded(codes, np.float32(1) / scale if divides else scale)


def _rounded(stored: StoredTensors, name: str) -> Encoded:
    numbers = floats(stored, name)
    scale = np.maximum(np.abs(numbers).mean(dtype=np.float64).astype(np.float32), _LEAST)
    codes = np.clip(np.rint(numbers * (np.float32(1) / scale)), -1, 1) + np.float32(1)
    return _encoded(codes.astype(np.uint8), scale.reshape(1))


def _encoded(codes: U8, scale: F32) -> Encoded:
    """Args: codes: [N, K] from 0 to 2. scale: [1]."""
    rows, columns = codes.shape
    scales = np.full((rows, 1), scale[0], np.float32)
    zeros = np.full((rows, 1), _MIDDLE, np.int32)
    return integer_matrix(codes + np.uint8(_MIDDLE - 1), scales, zeros, columns, "int8")
