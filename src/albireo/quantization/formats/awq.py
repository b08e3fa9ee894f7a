"""AutoAWQ, version gemm: codes of 4 bits with a zero for each group, eight outputs a word in an order of their own.

Becomes int4.gG exactly. Where zero_point is false the zeros are there all the same, 8 throughout.

    X.qweight  I32 [K, N / 8]    X.qzeros  I32 [groups, N / 8]    X.scales  F16 [groups, N]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import F32, U8, Encoded
from albireo.quantization.formats.arrays import FLOATS, array, floats
from albireo.quantization.formats.grouping import ROUNDED_NOTE, group_size, integer_encoding, integer_matrix, whole_or
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, matrix_shape, modules_with, require
from albireo.quantization.formats.rounding_keys import ROUNDED, ROUNDING_KEYS

#: The nibble of a word, from the lowest, in which each of eight outputs lies.
_PLACE = (0, 4, 1, 5, 2, 6, 3, 7)
_DENSE_NOTE = (
    "groups that are no multiple of 16 inputs have no encoding; such a matrix is held as numbers of the model's dtype"
)
_IGNORABLE = ROUNDING_KEYS | keys("quant_method desc_act")


@dataclass(frozen=True, slots=True)
class Awq:
    """Fields: group: inputs that share a scale, -1 for the whole row. left_out: what lies as numbers."""

    group: int
    left_out: LeftOut

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        return None if module in self.left_out else integer_encoding(4, *whole_or(self.group))

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan()
        for module in modules_with(stored, "qweight"):
            plan.add(self._matrix(stored, module))
        return plan

    def _matrix(self, stored: StoredTensors, module: str) -> Matrix:
        weight = require(stored, f"{module}.qweight", ("I32",))
        k, words = matrix_shape(stored, weight)
        scales = require(stored, f"{module}.scales", FLOATS)
        groups = matrix_shape(stored, scales)[0]
        require(stored, scales, FLOATS, (groups, words * 8))
        zeros = require(stored, f"{module}.qzeros", ("I32",), (groups, words))
        group = group_size(k, groups, (self.group if self.group > 0 else k,))
        if group is None:
            raise WeightMismatch(f"tensor {short(scales)} has {groups} groups, which do not divide {k} inputs")
        names, kind = (weight, scales, zeros), integer_encoding(4, group, k)
        note = (ROUNDED_NOTE if stored.type_name(scales) == "F32" else "") if kind else _DENSE_NOTE
        read = partial(_read, stored, names, group, kind)
        return Matrix(f"{module}.weight", (words * 8, k), kind, names, read, note)


def parse(fields: Fields) -> Awq:
    """Raises: ModelError, UnsupportedModel."""
    bits = fields.integer("w_bit" if fields.has("w_bit") else "bits", 1, 32, default=4)
    if bits != 4:
        fields.unsupported("bits", bits, "supported: 4")
    for key in ("version", "format", "checkpoint_format"):
        value = fields.text(key, "gemm").lower()
        if value != "gemm":
            fields.unsupported(key, value, "supported: gemm (AutoAWQ packs a model anew in it)")
    fields.flag("zero_point", True)
    backend, pack = fields.text("backend", "auto"), fields.text("pack_dtype", "int32")
    if backend == "llm-awq":
        fields.unsupported("backend", backend, "its words lie otherwise; supported: what AutoAWQ packs as gemm")
    if pack != "int32":
        fields.unsupported("pack_dtype", pack, "supported: int32")
    group = fields.integer("q_group_size" if fields.has("q_group_size") else "group_size", -1, 2**20, default=128)
    left_out = parse_left_out(fields, "modules_to_not_convert")
    fields.refuse_unread(_IGNORABLE, ROUNDED)
    return Awq(group, left_out)


def _unpack(words: NDArray[np.generic]) -> U8:
    """[rows, N / 8] -> [N, rows]."""
    across = np.ascontiguousarray(words.T).view("<u4")
    codes = np.empty((len(across), 8, across.shape[1]), np.uint8)
    for i, place in enumerate(_PLACE):
        codes[:, i] = (across >> np.uint32(4 * place)) & np.uint32(15)
    return codes.reshape(-1, across.shape[1])


def _read(stored: StoredTensors, names: tuple[str, str, str], group: int, kind: str | None) -> Encoded | F32:
    weight, scales, zeros = names
    codes, zero = _unpack(array(stored, weight)), _unpack(array(stored, zeros))
    scale = floats(stored, scales).T
    if kind is not None:
        return integer_matrix(codes, scale, zero, group, kind)
    index = np.arange(codes.shape[1]) // group
    numbers: F32 = (codes.astype(np.int32) - zero[:, index]).astype(np.float32) * scale[:, index]
    return numbers
