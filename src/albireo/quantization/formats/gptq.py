"""AutoGPTQ and GPTQModel: codes of 2 to 8 bits, one behind the other in words along the inputs.

Groups in their natural order become int4.gG or int8.gG, exactly. With desc_act the inputs of a group lie anywhere
(g_idx), which no encoding has: such a matrix is held as numbers.

    X.qweight  I32 [K bits / 32, N]      X.scales  F16 [groups, N]
    X.qzeros   I32 [groups, N bits / 32] X.g_idx   I32 [K]: the group of each input

Version 1 (checkpoint_format gptq) stores zero - 1, version 2 (gptq_v2) the zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import F32, Encoded
from albireo.quantization.formats.arrays import FLOATS, array, floats, unpack_words
from albireo.quantization.formats.grouping import (
    ROUNDED_NOTE,
    group_of_inputs,
    group_size,
    integer_encoding,
    integer_matrix,
    whole_or,
)
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, matrix_shape, modules_with, require
from albireo.quantization.formats.rounding_keys import ROUNDED, ROUNDING_KEYS

#: Widths of a code; what many files have comes first.
_BITS = (4, 8, 3, 2, 5, 6, 7)
_ORDER_NOTE = (
    "groups of inputs in any order (desc_act, g_idx) or of an odd size have no encoding; such a matrix is held as "
    "numbers of the model's dtype, 16 or 32 bits instead of a few"
)
_IGNORABLE = ROUNDING_KEYS | keys("quant_method backend")


@dataclass(frozen=True, slots=True)
class Gptq:
    """Fields: group: as in the config, -1 for the whole row. zero_offset: added to a stored zero.
    has_order: inputs of a group lie anywhere. bits, left_out: for foreseen(); tensors say them, too.
    """

    group: int
    zero_offset: int
    bits: int
    has_order: bool
    left_out: LeftOut

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        is_number = module in self.left_out or (self.has_order and self.group > 0)
        return None if is_number else integer_encoding(self.bits, *whole_or(self.group))

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan()
        for module in modules_with(stored, "qweight"):
            plan.add(self._matrix(stored, module))
        return plan

    def _matrix(self, stored: StoredTensors, module: str) -> Matrix:
        weight = require(stored, f"{module}.qweight", ("I32",))
        scales = require(stored, f"{module}.scales", FLOATS)
        zeros = require(stored, f"{module}.qzeros", ("I32",))
        (words, n), (groups, _) = matrix_shape(stored, weight), matrix_shape(stored, scales)
        require(stored, scales, FLOATS, (groups, n))
        bits = _bits(stored, weight, zeros, n, groups, self.bits)
        if words % (bits if 32 % bits else 1):
            raise WeightMismatch(f"tensor {short(weight)} has {words} words of codes; of {bits} bits they go by {bits}")
        k = words * 32 // bits
        names, index = [weight, scales, zeros], f"{module}.g_idx"
        group = group_size(k, groups, (self.group if self.group > 0 else k,))
        if index in stored or (self.has_order and self.group > 0 and groups > 1):
            require(stored, index, ("I32",), (k,))
            order = array(stored, index)
            # zeros throughout beside several groups: never set, as programs that order nothing leave it
            if order.any() or groups == 1 or group is None or self.has_order:
                group = group_of_inputs(order.astype(np.int64), groups)
            names.append(index)
        elif group is None:
            raise WeightMismatch(f"tensor {short(scales)} has {groups} groups for {k} inputs, and there is no g_idx")
        kind = None if group is None else integer_encoding(bits, group, k)
        note = ROUNDED_NOTE if stored.type_name(scales) == "F32" else ""
        read = partial(self._read, stored, tuple(names), bits, group, kind)
        return Matrix(f"{module}.weight", (n, k), kind, tuple(names), read, note if kind else _ORDER_NOTE)

    def _read(
        self, stored: StoredTensors, names: tuple[str, ...], bits: int, group: int | None, kind: str | None
    ) -> Encoded | F32:
        weight, scales, zeros = names[:3]
        codes = unpack_words(array(stored, weight).T, bits)
        scale = floats(stored, scales).T
        zero = unpack_words(array(stored, zeros), bits)[:, : len(codes)].T.astype(np.int32) + self.zero_offset
        if kind is not None and group is not None:
            if zero.max(initial=0) > 255:
                raise WeightMismatch(f"tensor {short(zeros)} holds a zero point of 256; codes of 8 bits end at 255")
            return integer_matrix(codes, scale, zero, group, kind)
        k = codes.shape[1]
        index = np.arange(k) // group if group is not None else _index(stored, names[3], len(scale.T))
        numbers: F32 = (codes.astype(np.int32) - zero[:, index]).astype(np.float32) * scale[:, index]
        return numbers


def parse(fields: Fields) -> Gptq:
    """Raises: ModelError, UnsupportedModel."""
    bits = fields.integer("bits", 1, 32)
    if bits not in _BITS:
        fields.unsupported("bits", bits, "supported: 2 to 8")
    fmt = fields.text(fields.one_name("checkpoint_format", "format"), "gptq")
    if fmt not in ("gptq", "gptq_v2"):
        fields.unsupported("checkpoint_format", fmt, "supported: gptq, gptq_v2 (GPTQModel converts the others)")
    fields.one_of("pack_dtype", ("int32",), "int32")
    group = fields.integer("group_size", -1, 2**20, default=-1)
    if group == 0:
        fields.fail("group_size", group, "must be -1 for the whole row, or a positive number of inputs")
    has_order, left_out = fields.flag("desc_act", False), parse_left_out(fields, "modules_to_not_convert")
    fields.refuse_unread(_IGNORABLE, ROUNDED)
    return Gptq(group, 1 if fmt == "gptq" else 0, bits, has_order, left_out)


def _bits(stored: StoredTensors, weight: str, zeros: str, n: int, groups: int, said: int) -> int:
    """Width of a code: as many as the zeros have, which modules may differ in; said: what the config has."""
    shape = matrix_shape(stored, zeros)
    for bits in (said, *_BITS):
        if shape == (groups, -(-n * bits // 32)):
            return bits
    raise WeightMismatch(
        f"tensor {short(zeros)} is {list(shape)} beside {short(weight)} of {n} outputs in {groups} groups: "
        "that is no width of a code from 2 to 8 bits"
    )


def _index(stored: StoredTensors, name: str, groups: int) -> NDArray[np.int64]:
    index = array(stored, name).astype(np.int64)
    if index.min(initial=0) < 0 or index.max(initial=0) >= groups:
        raise WeightMismatch(f"tensor {short(name)} names groups from {index.min()} to {index.max()} of {groups}")
    return index
