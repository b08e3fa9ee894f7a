"""MXFP4 (OCP microscaling, 2023): numbers e2m1 in groups of 32 with a power of two each.

It becomes fp4.g32, bit by bit.

    X_blocks  U8 [N, K / 32, 16] or [N, K / 2], the low half of a byte first      X_scales  U8 (e8m0) [N, K / 32]

Tensors of several matrices, one for each expert, are read by models/checkpoint/interleaved_experts.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import EllipsisType

import numpy as np

from albireo.encodings import encoding
from albireo.errors import UnsupportedModel, WeightMismatch, short
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.arrays import array, checked_e8m0, nibbles
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, require

ENCODING = "fp4.g32"


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """Fields: left_out: what lies as numbers."""

    left_out: LeftOut

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        return None if module in self.left_out else ENCODING

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan()
        for name in stored.names:
            if name.endswith("_blocks"):
                module = name.removesuffix("_blocks")
                if len(stored.shape(name)) > 3:
                    raise UnsupportedModel(
                        f"tensor {short(name)} is {list(stored.shape(name))}: matrices of several experts are read of "
                        "gpt-oss alone; of others one matrix a tensor is"
                    )
                plan.add(mxfp4_matrix(stored, module, name, f"{module}_scales"))
        return plan


def parse(fields: Fields) -> Mxfp4:
    """Raises: ModelError, UnsupportedModel."""
    left_out = parse_left_out(fields, "modules_to_not_convert")
    fields.refuse_unread(keys("quant_method dequantize"), {})
    return Mxfp4(left_out)


def mxfp4_matrix(
    stored: StoredTensors, name: str, blocks: str, scales: str, at: tuple[int, slice] | None = None
) -> Matrix:
    """The matrix called name. Args: at: which of the tensors' matrices, and its rows; None: there is one.

    Raises: WeightMismatch.
    """
    require(stored, blocks, ("U8", "I8"))
    whole = stored.shape(blocks)
    shape = whole if at is None else whole[1:]
    if len(shape) not in (2, 3) or not all(shape):
        raise WeightMismatch(f"tensor {short(blocks)} is {list(whole)}; it must be a matrix")
    n, k = shape[0], 2 * int(np.prod(shape[1:], dtype=object))
    if k % 32 or (len(shape) == 3 and shape[2] != 16):
        raise WeightMismatch(f"tensor {short(blocks)} is {list(whole)}; groups of 32 numbers take 16 bytes")
    require(stored, scales, ("U8", "F8_E8M0"), (*whole[: len(whole) - len(shape)], n, k // 32))
    rows = n if at is None else len(range(*at[1].indices(n)))
    read = partial(_read, stored, blocks, scales, ... if at is None else at)
    return Matrix(name, (rows, k), ENCODING, (blocks, scales), read)


def _read(stored: StoredTensors, blocks: str, scales: str, at: tuple[int, slice] | EllipsisType) -> Encoded:
    packed, exponents = (array(stored, name)[at].astype(np.uint8) for name in (blocks, scales))
    codes = nibbles(packed.reshape(len(packed), -1))
    ones = np.ones((len(codes), 1), np.float32)
    return Encoded(encoding(ENCODING), codes, ones, gamma=checked_e8m0(exponents, scales))
