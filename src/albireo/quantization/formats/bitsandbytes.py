"""bitsandbytes: int8 (LLM.int8) and the 4-bit types nf4 and fp4, also with scales that are quantized once more.

int8 becomes int8: code * SCB / 127. nf4 and fp4 are tables of sixteen numbers that are no multiples of one another,
and blocks run over the ends of rows; they are held as numbers.

    X.weight  I8 [N, K]            X.SCB  F32 [N]        X.weight_format  U8 []: 0, row by row
    X.weight  U8 [N K / 2, 1]      X.weight.quant_map  F32 [16]    X.weight.absmax  F32, or U8 with
    X.weight.nested_absmax F32, X.weight.nested_quant_map F32 [256]
    X.weight.quant_state.bitsandbytes__nf4  U8: JSON with shape, blocksize, nested_blocksize, nested_offset
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from albireo.encodings import encoding
from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields, keys, parse_json
from albireo.quantization.encoded import F32, Encoded
from albireo.quantization.formats.arrays import array, finite, floats, nibbles
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, matrix_shape, require

_STATE = ".quant_state.bitsandbytes__"
#: JSON of a few numbers.
_MAX_STATE_BYTES = 4096
_NOTE = (
    "nf4 and fp4 of bitsandbytes have no encoding; such a matrix is held as numbers of the model's dtype, 16 or 32 "
    "bits instead of 4.1 to 4.5"
)
_IGNORABLE = keys(
    "quant_method load_in_4bit _load_in_8bit _load_in_4bit llm_int8_enable_fp32_cpu_offload",
    "llm_int8_has_fp16_weight llm_int8_threshold bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type bnb_4bit_use_double_quant bnb_4bit_quant_storage",
)


@dataclass(frozen=True, slots=True)
class BitsAndBytes:
    """What is read is said by the tensors alone. Fields: is_int8, left_out: for foreseen()."""

    is_int8: bool
    left_out: LeftOut

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        return "int8" if self.is_int8 and module not in self.left_out else None

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan()
        for name in stored.names:
            if name.endswith(".weight_format"):
                _check_order(stored, name)
                plan.unread[name] = ""
            elif name.endswith(".SCB"):
                plan.add(_int8(stored, name.removesuffix(".SCB")))
            elif _STATE in name:
                plan.add(_four_bits(stored, name))
        return plan


def parse(fields: Fields) -> BitsAndBytes:
    """Raises: ModelError, UnsupportedModel."""
    fields.one_of("bnb_4bit_quant_type", ("nf4", "fp4"), "fp4")
    is_int8, left_out = fields.flag("load_in_8bit", False), parse_left_out(fields, "llm_int8_skip_modules")
    fields.refuse_unread(_IGNORABLE, {})
    return BitsAndBytes(is_int8, left_out)


def _check_order(stored: StoredTensors, name: str) -> None:
    require(stored, name, ("U8",))
    if array(stored, name).any():
        raise WeightMismatch(f"tensor {short(name)} is not 0: weights that do not lie row by row are not read")


def _int8(stored: StoredTensors, module: str) -> Matrix:
    weight = require(stored, f"{module}.weight", ("I8",))
    n, k = matrix_shape(stored, weight)
    scale = require(stored, f"{module}.SCB", ("F32",), (n,))
    return Matrix(weight, (n, k), "int8", (weight, scale), partial(_read_int8, stored, weight, scale))


def _read_int8(stored: StoredTensors, weight: str, scale_name: str) -> Encoded:
    codes = array(stored, weight).view(np.uint8) ^ np.uint8(0x80)
    scale = floats(stored, scale_name)[:, None] / np.float32(127)
    return Encoded(encoding("int8"), codes, scale, zero=np.full(scale.shape, 128, np.uint8))


def _four_bits(stored: StoredTensors, state_name: str) -> Matrix:
    weight = state_name[: state_name.index(_STATE)]
    require(stored, state_name, ("U8",))
    buffer = stored.buffer(state_name)
    if len(buffer) > _MAX_STATE_BYTES:
        raise WeightMismatch(f"tensor {short(state_name)} has {len(buffer)} bytes; at most {_MAX_STATE_BYTES} are read")
    state = Fields(parse_json(bytes(buffer), short(state_name)), short(state_name))
    shape = state.raw("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and 0 < n < 2**31 for n in shape):
        state.fail("shape", shape, "must be two whole numbers")
    n, k = shape
    blocks = -(-n * k // state.integer("blocksize", 1, 2**20))
    if weight not in stored or len(stored.buffer(weight)) != -(-n * k // 2):
        raise WeightMismatch(
            f"tensor {short(weight)} does not hold the {n} x {k} numbers that {short(state_name)} names"
        )
    names = [weight, state_name, require(stored, f"{weight}.quant_map", ("F32",), (16,))]
    absmax = require(stored, f"{weight}.absmax", ("F32", "U8"), (blocks,))
    if stored.type_name(absmax) == "U8":
        nested = -(-blocks // state.integer("nested_blocksize", 1, 2**20))
        names.append(require(stored, f"{weight}.nested_absmax", ("F32",), (nested,)))
        names.append(require(stored, f"{weight}.nested_quant_map", ("F32",), (256,)))
    read = partial(_read_four_bits, stored, weight, (n, k), state)
    return Matrix(weight, (n, k), None, (*names, absmax), read, _NOTE)


def _read_four_bits(stored: StoredTensors, weight: str, shape: tuple[int, int], state: Fields) -> F32:
    absmax_name = f"{weight}.absmax"
    if stored.type_name(absmax_name) == "U8":
        codes = array(stored, absmax_name).astype(np.uint8)
        blocks = np.arange(len(codes)) // state.integer("nested_blocksize", 1, 2**20)
        absmax = floats(stored, f"{weight}.nested_quant_map")[codes] * floats(stored, f"{weight}.nested_absmax")[blocks]
        absmax = absmax + np.float32(state.number("nested_offset", -1e30, 1e30, default=0.0))
    else:
        absmax = floats(stored, absmax_name)
    finite(absmax, absmax_name)
    data = np.frombuffer(stored.buffer(weight), np.uint8)
    # the high half of a byte comes first
    codes = nibbles((data >> np.uint8(4)) | (data << np.uint8(4)))[: shape[0] * shape[1]]
    numbers = floats(stored, f"{weight}.quant_map")[codes]
    size = state.integer("blocksize", 1, 2**20)
    whole = len(numbers) // size
    numbers[: whole * size].reshape(whole, size)[...] *= absmax[:whole, None]
    numbers[whole * size :] *= absmax[whole:].sum()  # a last block that is not full
    return numbers.reshape(shape)
