"""Hugging Face `fp8` and `fbgemm_fp8`, ModelOpt's FP8: e4m3 numbers with a scale a tensor, channel, group or block.

Each becomes encoding fp8 or, for blocks, fp8.g128: the numbers are kept, scales are written once more for each row.
compressed_tensors.py reads its own float8 matrices with fp8_matrix().

    X.weight            F8_E4M3 [N, K]
    X.weight_scale_inv  F32 [N / 128, K / 128] (blocks; multiplied with, its name notwithstanding)
    X.weight_scale      F32 [], [1], [N] or [N, 1]; of groups [N, K / size]; of blocks also [N / 128, 1, K / 128, 1], as
                        ModelOpt has them

Experts may be MXFP4 (`expert_dtype`, DeepSeek V4): X.weight I8 [N, K / 2], see mxfp4.py, X.weight_scale_inv F8_E8M0
[N, K / 32].

Scales that are powers of two (MXFP8: groups of 32) lie as F8_E8M0, or as its bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import numpy as np

from albireo.encodings import encoding
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import F32, Encoded, e4m3_values, e8m0_values
from albireo.quantization.formats.arrays import FLOATS, array, checked_e4m3, checked_e8m0, floats
from albireo.quantization.formats.grouping import spread
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors, matrix_shape, require, unread_scales
from albireo.quantization.formats.mxfp4 import ENCODING as MXFP4
from albireo.quantization.formats.mxfp4 import mxfp4_matrix

#: ModelOpt's names of what is read here.
ALGORITHMS = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8")
WEIGHT_ONLY = "FP8_PB_WO"
_MX_GROUP = 32
_EXPERTS = ".experts."
_SCALES = ("weight_scale_inv", "weight_scale")
_SCALE_TYPES = (*FLOATS, "F8_E8M0", "U8")
_DENSE_NOTE = (
    "blocks and groups of fp8 that are no multiple of 128 inputs wide are held as numbers of the model's dtype, 16 or "
    "32 bits"
)
_AS_TEXT = re.compile(r"[0-9]{1,6}x[0-9]{1,6}")
_IGNORABLE = keys(
    "quant_method activation_scale_ub kv_cache_quant_algo",
    "kv_cache_scheme config_groups producer dequantize scale_fmt",
)


@dataclass(frozen=True, slots=True)
class Fp8:
    """Fields: block: rows and columns that share a scale, where scales are a matrix. is_weight_only: see Plan.
    left_out: what lies as numbers. has_fp4_experts: experts are of MXFP4.
    """

    block: tuple[int, int] | None
    is_weight_only: bool
    left_out: LeftOut
    has_fp4_experts: bool = False

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        if self.has_fp4_experts and _EXPERTS in module:
            return MXFP4
        return None if module in self.left_out else fp8_encoding(self.block)

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan(unread=unread_scales(stored), is_weight_only=self.is_weight_only)
        for name in stored.names:
            if name.endswith(".weight") and stored.type_name(name) == "F8_E4M3":
                plan.add(fp8_matrix(stored, name.removesuffix(".weight"), self.block))
            elif self.has_fp4_experts and _EXPERTS in name and stored.type_name(name) == "I8":
                scales = f"{name.removesuffix('.weight')}.{_SCALES[0]}"
                plan.add(mxfp4_matrix(stored, name, name, scales))
        return plan


def parse(fields: Fields) -> Fp8:
    """Raises: ModelError, UnsupportedModel."""
    algorithm = fields.text("quant_algo", "FP8").upper()
    if algorithm not in ALGORITHMS:
        fields.unsupported("quant_algo", algorithm, f"supported: {', '.join(ALGORITHMS)}")
    kind = fields.text("fmt", "e4m3")
    if kind not in ("e4m3", "float8_e4m3fn"):
        fields.unsupported("fmt", kind, "supported: e4m3")
    scheme = fields.text("activation_scheme", "dynamic")
    if scheme not in ("dynamic", "static"):
        fields.unsupported("activation_scheme", scheme, "supported: dynamic, static (whose scales are not used)")
    block = parse_block(fields, "weight_block_size")
    group = fields.optional_integer("group_size", 1, 2**20)
    if algorithm == "MXFP8":
        block = (1, group or _MX_GROUP)
    elif algorithm == WEIGHT_ONLY and block is None:
        block = (group or 128, group or 128)
    left_out = parse_left_out(fields, "modules_to_not_convert", "ignored_layers", "exclude_modules", "ignore")
    experts = fields.text("expert_dtype", "fp8")
    if experts not in ("fp8", "fp4"):
        fields.unsupported("expert_dtype", experts, "supported: fp8, as all others are, and fp4")
    fields.refuse_unread(_IGNORABLE, {})
    return Fp8(block, algorithm == WEIGHT_ONLY, left_out, experts == "fp4")


def parse_block(fields: Fields, key: str) -> tuple[int, int] | None:
    """Rows and columns of a block, or None."""
    value = fields.raw(key)
    if value is None:
        return None
    if isinstance(value, str) and _AS_TEXT.fullmatch(value):  # as compressed-tensors wrote it at first: "128x128"
        value = [int(number) for number in value.split("x")]
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and 0 < n < 2**20 for n in value):
        fields.fail(key, value, "must be two whole numbers, rows and columns of a block")
    return value[0], value[1]


def fp8_encoding(block: tuple[int, int] | None) -> str | None:
    """What holds rows of e4m3 with scales of blocks; None: a scale a row."""
    return "fp8" if block is None else "fp8.g128" if block[1] % 128 == 0 else None


def fp8_matrix(stored: StoredTensors, module: str, block: tuple[int, int] | None) -> Matrix:
    """The matrix module.weight. Raises: WeightMismatch."""
    name = require(stored, f"{module}.weight", ("F8_E4M3",))
    shape = matrix_shape(stored, name)
    found = [f"{module}.{part}" for part in _SCALES if f"{module}.{part}" in stored]
    scale = require(stored, found[0] if found else f"{module}.{_SCALES[1]}", _SCALE_TYPES)
    per_row = _is_per_row(stored.shape(scale), shape, block is not None)
    size = (1, shape[1]) if per_row else _block(stored, scale, shape, block)
    kind = fp8_encoding(None if per_row else size)
    read = partial(_read, stored, name, scale, size, kind)
    return Matrix(name, shape, kind, (name, scale), read, _DENSE_NOTE if kind is None else "")


def _is_per_row(scale: tuple[int, ...], shape: tuple[int, int], has_blocks: bool) -> bool:
    """Whether rows have a scale each, or all have one. With blocks in the config a single one is a block."""
    if scale in ((shape[0],), (shape[0], 1)) and scale != (1, 1):
        return True
    return scale in ((), (1,)) or (scale == (1, 1) and not has_blocks)


def _block(stored: StoredTensors, scale: str, shape: tuple[int, int], block: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns that share a scale. A scale for each group of inputs of a row is told by its shape alone."""
    rows, columns = block or (128, 128)
    found, blocks = stored.shape(scale), (-(-shape[0] // rows), -(-shape[1] // columns))
    if found != blocks and len(found) == 2 and found[0] == shape[0] and found[1] and shape[1] % found[1] == 0:
        return 1, shape[1] // found[1]
    if found != (blocks[0], 1, blocks[1], 1):
        require(stored, scale, _SCALE_TYPES, blocks)
    return rows, columns


def _scales(stored: StoredTensors, name: str) -> F32:
    if stored.type_name(name) == "U8":
        return e8m0_values()[checked_e8m0(array(stored, name).astype(np.uint8), name)]
    return floats(stored, name)


def _read(stored: StoredTensors, name: str, scale_name: str, size: tuple[int, int], kind: str | None) -> Encoded | F32:
    codes = checked_e4m3(array(stored, name).astype(np.uint8), name)
    n, k = codes.shape
    scale = _scales(stored, scale_name)
    if size == (1, k):  # a scale a row, or one for all
        scale = np.ascontiguousarray(np.broadcast_to(scale.reshape(-1, 1), (n, 1)))
    else:
        scale = scale.reshape(-1, -(-k // size[1]))[np.arange(n) // size[0]]
    if kind is None:
        numbers: F32 = e4m3_values()[codes] * np.repeat(scale, size[1], axis=1)[:, :k]
        return numbers
    return Encoded(encoding(kind), codes, spread(scale, size[1], k, kind))
