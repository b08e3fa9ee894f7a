"""MXFP4 (OCP microscaling, 2023): numbers e2m1 in groups of 32 with a power of two each.

It becomes fp4.g32, bit by bit.

    X_blocks  U8 [N, K / 32, 16] or [N, K / 2], the low half of a byte first      X_scales  U8 (e8m0) [N, K / 32]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from albireo.encodings import encoding
from albireo.errors import UnsupportedModel, WeightMismatch, short
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.arrays import array, checked_e8m0, nibbles
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, require

_ENCODING = "fp4.g32"


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """There is nothing to set."""

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan()
        for name in stored.names:
            if name.endswith("_blocks"):
                module = name.removesuffix("_blocks")
                if len(stored.shape(name)) > 3:
                    raise UnsupportedModel(
                        f"tensor {short(name)} is {list(stored.shape(name))}: matrices of several experts are not "
                        "supported; one matrix a tensor is"
                    )
                plan.add(mxfp4_matrix(stored, module, name, f"{module}_scales"))
        return plan


def parse(fields: Fields) -> Mxfp4:
    """Raises: ModelError, UnsupportedModel."""
    fields.refuse_unread(keys("quant_method modules_to_not_convert dequantize"), {})
    return Mxfp4()


def mxfp4_matrix(stored: StoredTensors, name: str, blocks: str, scales: str) -> Matrix:
    """The matrix called name. Raises: WeightMismatch."""
    require(stored, blocks, ("U8",))
    shape = stored.shape(blocks)
    if len(shape) not in (2, 3) or not all(shape):
        raise WeightMismatch(f"tensor {short(blocks)} is {list(shape)}; it must be a matrix")
    n, k = shape[0], 2 * int(np.prod(shape[1:], dtype=object))
    if k % 32 or (len(shape) == 3 and shape[2] != 16):
        raise WeightMismatch(f"tensor {short(blocks)} is {list(shape)}; groups of 32 numbers take 16 bytes")
    require(stored, scales, ("U8", "F8_E8M0"), (n, k // 32))
    read = partial(_read, stored, blocks, scales, (n, k))
    return Matrix(name, (n, k), _ENCODING, (blocks, scales), read)


def _read(stored: StoredTensors, blocks: str, scales: str, shape: tuple[int, int]) -> Encoded:
    codes = nibbles(array(stored, blocks).astype(np.uint8).reshape(shape[0], -1))
    exponents = checked_e8m0(array(stored, scales).astype(np.uint8), scales)
    return Encoded(encoding(_ENCODING), codes, np.ones((shape[0], 1), np.float32), gamma=exponents)
