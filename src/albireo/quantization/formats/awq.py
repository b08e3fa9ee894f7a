"""AutoAWQ: codes of 4 bits with a zero for each group. Becomes int4.gG exactly.

    gemm    X.qweight  I32 [K, N / 8]    X.qzeros  I32 [groups, N / 8]    X.scales  F16 [groups, N]
    gemv    X.qweight  I32 [N, K / 8]    X.qzeros  I32 [N, groups / 8]    X.scales  F16 [N, groups]

Of gemm a word has eight outputs in an order of their own; of gemv eight inputs, or groups, one after the other, and
there are more groups than are used, to fill words. Where zero_point is false the zeros are there all the same, 8
throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import F32, U8, Encoded
from albireo.quantization.formats.arrays import FLOATS, array, floats, unpack_words
from albireo.quantization.formats.grouping import ROUNDED_NOTE, group_size, integer_encoding, integer_matrix, whole_or
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, matrix_shape, modules_with, require
from albireo.quantization.formats.rounding_keys import ROUNDED, ROUNDING_KEYS

#: The nibble of a word, from the lowest, in which each of eight outputs lies.
_PLACE = (0, 4, 1, 5, 2, 6, 3, 7)
_VERSIONS = ("gemm", "gemv")
#: Of weights, scales and zeros.
_Names = tuple[str, str, str]
_DENSE_NOTE = (
    "groups that are no multiple of 16 inputs have no encoding; such a matrix is held as numbers of the model's dtype"
)
_IGNORABLE = ROUNDING_KEYS | keys("quant_method desc_act")


@dataclass(frozen=True, slots=True)
class Awq:
    """Fields: group: inputs that share a scale, -1 for the whole row. left_out: what lies as numbers. is_gemv: how."""

    group: int
    left_out: LeftOut
    is_gemv: bool = False

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        return None if module in self.left_out else integer_encoding(4, *whole_or(self.group))

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan()
        for module in modules_with(stored, "qweight"):
            plan.add(self._by_rows(stored, module) if self.is_gemv else self._matrix(stored, module))
        return plan

    def _by_rows(self, stored: StoredTensors, module: str) -> Matrix:
        weight = require(stored, f"{module}.qweight", ("I32",))
        n, words = matrix_shape(stored, weight)
        k = words * 8
        zeros = require(stored, f"{module}.qzeros", ("I32",))
        room = matrix_shape(stored, zeros)[1] * 8
        require(stored, zeros, ("I32",), (n, room // 8))
        scales = require(stored, f"{module}.scales", FLOATS, (n, room))
        group = self.group if self.group > 0 else k
        if -(-k // group) > room:
            raise WeightMismatch(f"tensor {short(scales)} has {room} groups for {k} inputs in groups of {group}")
        return _made(stored, (weight, scales, zeros), (n, k), group, _read_rows)

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
        return _made(stored, (weight, scales, zeros), (words * 8, k), group, _read)


def parse(fields: Fields) -> Awq:
    """Raises: ModelError, UnsupportedModel."""
    bits = fields.integer(fields.one_name("w_bit", "bits"), 1, 32, default=4)
    if bits != 4:
        fields.unsupported("bits", bits, "supported: 4")
    versions = {key: fields.text(key, "").lower() for key in ("version", "format", "checkpoint_format")}
    for key, value in versions.items():
        if value not in ("", *_VERSIONS):
            fields.unsupported(key, value, "supported: gemm, gemv (AutoAWQ packs a model anew in one of these)")
    found = {value for value in versions.values() if value} or {_VERSIONS[0]}
    if len(found) > 1:
        fields.fail("version", versions["version"], f"contradicts format or checkpoint_format: {sorted(found)}")
    fields.flag("zero_point", True)
    backend, pack = fields.text("backend", "auto"), fields.text("pack_dtype", "int32")
    if backend == "llm-awq":
        fields.unsupported("backend", backend, "its words lie otherwise; supported: what AutoAWQ packs as gemm")
    if pack != "int32":
        fields.unsupported("pack_dtype", pack, "supported: int32")
    group = fields.integer(fields.one_name("q_group_size", "group_size"), -1, 2**20, default=128)
    left_out = parse_left_out(fields, "modules_to_not_convert")
    fields.refuse_unread(_IGNORABLE, ROUNDED)
    return Awq(group, left_out, found == {_VERSIONS[1]})


def _made(
    stored: StoredTensors, names: _Names, shape: tuple[int, int], group: int, read: Callable[..., Encoded | F32]
) -> Matrix:
    kind = integer_encoding(4, group, shape[1])
    note = (ROUNDED_NOTE if stored.type_name(names[1]) == "F32" else "") if kind else _DENSE_NOTE
    name = f"{names[0].removesuffix('.qweight')}.weight"
    return Matrix(name, shape, kind, names, partial(read, stored, names, group, kind), note)


def _unpack(words: NDArray[np.generic]) -> U8:
    """[rows, N / 8] -> [N, rows]."""
    across = np.ascontiguousarray(words.T).view("<u4")
    codes = np.empty((len(across), 8, across.shape[1]), np.uint8)
    for i, place in enumerate(_PLACE):
        codes[:, i] = (across >> np.uint32(4 * place)) & np.uint32(15)
    return codes.reshape(-1, across.shape[1])


def _read(stored: StoredTensors, names: _Names, group: int, kind: str | None) -> Encoded | F32:
    weight, scales, zeros = names
    codes, zero = _unpack(array(stored, weight)), _unpack(array(stored, zeros))
    return _matrix_of(codes, floats(stored, scales).T, zero, group, kind)


def _read_rows(stored: StoredTensors, names: _Names, group: int, kind: str | None) -> Encoded | F32:
    weight, scales, zeros = names
    codes, zero = unpack_words(array(stored, weight), 4), unpack_words(array(stored, zeros), 4)
    groups = -(-codes.shape[1] // group)
    return _matrix_of(codes, floats(stored, scales)[:, :groups], zero[:, :groups], group, kind)


def _matrix_of(codes: U8, scale: F32, zero: U8, group: int, kind: str | None) -> Encoded | F32:
    """Args: codes: [N, K]. scale, zero: [N, groups]."""
    if kind is not None:
        return integer_matrix(codes, scale, zero, group, kind)
    index = np.arange(codes.shape[1]) // group
    numbers: F32 = (codes.astype(np.int32) - zero[:, index]).astype(np.float32) * scale[:, index]
    return numbers
