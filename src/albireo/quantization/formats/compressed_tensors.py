"""compressed-tensors (llm-compressor, vLLM, Red Hat AI): int8, packed ints of 2 to 8 bits, float8, MXFP8, MXFP4, NVFP4.

What a module's tensors are says how it is stored; the config is checked, and says how wide groups are.

    int-quantized    X.weight         I8 [N, K]               -> int8, int8.gG
    pack-quantized   X.weight_packed  I32 [N, K bits / 32]    -> int4.gG, int4p.gG, int8, int8.gG
    float-quantized  X.weight         F8_E4M3 [N, K]          -> fp8, fp8.g128, numbers
    mxfp8-quantized  the same, scales of powers of two        -> numbers
    mxfp4-pack-…     X.weight_packed  U8 [N, K / 2]           -> fp4.g32
    nvfp4-pack-…     X.weight_packed  U8 [N, K / 2]           -> fp4.g16
    naive-quantized  as int-quantized or float-quantized

int4p.gG where the file's metadata says so, as albireo quantize writes it.
Beside X.weight_scale ([1], [N, 1], [N, groups] or blocks), X.weight_zero_point, X.weight_shape, X.weight_g_idx.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.encodings import ENCODINGS, encoding
from albireo.errors import WeightMismatch, short
from albireo.json_file import Fields, keys
from albireo.quantization.encoded import F32, U8, Encoded
from albireo.quantization.formats.arrays import FLOATS, array, floats, unpack_words
from albireo.quantization.formats.fp8 import fp8_encoding, fp8_matrix, parse_block
from albireo.quantization.formats.grouping import (
    ROUNDED_NOTE,
    group_of_inputs,
    group_size,
    integer_encoding,
    integer_matrix,
    whole_or,
)
from albireo.quantization.formats.left_out import LeftOut, parse_left_out
from albireo.quantization.formats.matrix import (
    Matrix,
    Plan,
    StoredTensors,
    matrix_shape,
    modules_with,
    require,
    unread_scales,
)
from albireo.quantization.formats.mxfp4 import mxfp4_matrix
from albireo.quantization.formats.nvfp4 import nvfp4_matrix
from albireo.quantization.methods.progressive import METADATA_KEY, as_progressive

_FORMATS = (
    "int-quantized",
    "pack-quantized",
    "float-quantized",
    "naive-quantized",
    "mxfp8-quantized",
    "mxfp4-pack-quantized",
    "nvfp4-pack-quantized",
    "mixed-precision",
    "dense",
)
_ZERO, _ORDER = "weight_zero_point", "weight_g_idx"
#: Widths of packed ints; the first two are most files'.
_BITS = (4, 8, 2, 3, 5, 6, 7)
_DENSE_NOTE = (
    "groups of inputs in any order (actorder) or of an odd size have no encoding; such a matrix is held as numbers of "
    "the model's dtype, 16 or 32 bits instead of a few"
)
_IGNORABLE = keys(
    "quant_method kv_cache_scheme global_compression_ratio version quantization_status run_compressed",
)
_WEIGHT_KEYS = keys(
    "dynamic observer observer_kwargs scale_dtype zp_dtype strategy",
)


@dataclass(frozen=True, slots=True)
class CompressedTensors:
    """Fields: groups: widths of groups that the config names. block: of float8. is_weight_only: see Plan.
    held, left_out: for foreseen(): what the weights of the first group of modules become, and what lies as numbers.
    widths: of packed ints. needs: tensors that every matrix of ints has, by the last part of their names.
    """

    groups: tuple[int, ...]
    block: tuple[int, int] | None
    is_weight_only: bool
    held: str | None
    left_out: LeftOut
    widths: tuple[int, ...] = _BITS[:2]
    needs: frozenset[str] = frozenset()

    def foreseen(self, module: str) -> str | None:
        """See Format."""
        return None if module in self.left_out else self.held

    def plan(self, stored: StoredTensors) -> Plan:
        plan = Plan(unread=unread_scales(stored), is_weight_only=self.is_weight_only)
        progressive = frozenset(str(stored.settings.get(METADATA_KEY, "")).split(","))
        for module in modules_with(stored, "weight_packed"):
            if stored.type_name(f"{module}.weight_packed") == "U8":
                plan.add(_four_bit_floats(stored, module))
            else:
                matrix = self._packed(stored, module)
                plan.add(_progressive(matrix) if module in progressive else matrix)
        for module in modules_with(stored, "weight"):
            kind = stored.type_name(f"{module}.weight")
            if kind == "F8_E4M3":
                plan.add(fp8_matrix(stored, module, self.block))
            elif kind == "I8":
                shape = matrix_shape(stored, f"{module}.weight")
                plan.add(self._integers(stored, module, shape, 8, (f"{module}.weight",)))
        return plan

    def _packed(self, stored: StoredTensors, module: str) -> Matrix:
        packed = require(stored, f"{module}.weight_packed", ("I32",))
        rows, words = matrix_shape(stored, packed)
        sizes = require(stored, f"{module}.weight_shape", ("I64", "I32"), (2,))
        n, k = (int(size) for size in array(stored, sizes).astype(np.int64))
        bits = next((b for b in self.widths if n == rows and 0 < k <= words * 32 and words == -(-k * b // 32)), None)
        if bits is None:
            wanted = " or ".join(map(str, self.widths))
            raise WeightMismatch(
                f"tensor {short(packed)} is {[rows, words]} for a matrix {[n, k]}: not {wanted} bits each"
            )
        return self._integers(stored, module, (n, k), bits, (packed, sizes))

    def _integers(
        self, stored: StoredTensors, module: str, shape: tuple[int, int], bits: int, names: tuple[str, ...]
    ) -> Matrix:
        n, k = shape
        scale = require(stored, f"{module}.weight_scale", FLOATS)
        groups = _num_groups(stored, scale, n)
        group = k if groups == 1 else group_size(k, groups, self.groups)
        zero, index = f"{module}.{_ZERO}", f"{module}.{_ORDER}"
        for part in self.needs if groups > 1 else self.needs - {_ORDER}:
            if f"{module}.{part}" not in stored:
                require(stored, f"{module}.{part}", ())
        zeros = zero if zero in stored else None
        order = None
        if zeros:
            _check_zeros(stored, zeros, (n, groups), bits)
            names = (*names, zeros)
        if index in stored:
            require(stored, index, ("I32", "I64"), (k,))
            names = (*names, index)
            numbers = array(stored, index).astype(np.int64)
            if groups > 1 and numbers.min() >= 0:  # -1 throughout: never set
                group, order = group_of_inputs(numbers, groups), index
        kind = None if group is None else integer_encoding(bits, group, k)
        if bits == 8 and groups == 1 and zeros is None:
            kind = "int8"
        note = ROUNDED_NOTE if stored.type_name(scale) == "F32" and kind not in ("int8", None) else ""
        source = _Source(stored, names[0], scale, zeros, order, shape, groups, bits)
        read = partial(_read, source, group, kind)
        return Matrix(f"{module}.weight", shape, kind, (*names, scale), read, note if kind else _DENSE_NOTE)


@dataclass(frozen=True, slots=True)
class _Source:
    """The tensors of an integer matrix, and what is known of them."""

    stored: StoredTensors
    weight: str
    scale: str
    zeros: str | None
    order: str | None
    shape: tuple[int, int]
    groups: int
    bits: int

    def codes(self) -> U8:
        """[N, K] codes with the sign turned into an offset of half the range."""
        lying = array(self.stored, self.weight)
        if self.stored.type_name(self.weight) == "I8":
            return lying.view(np.uint8) ^ np.uint8(0x80)
        return unpack_words(lying, self.bits)[:, : self.shape[1]]

    def zero(self) -> NDArray[np.int32]:
        """[N, groups]."""
        n, middle = self.shape[0], 1 << (self.bits - 1)
        if self.zeros is None:
            return np.full((n, self.groups), middle, np.int32)
        lying = array(self.stored, self.zeros)
        if self.stored.type_name(self.zeros) == "I8":
            return np.broadcast_to(lying.astype(np.int32).reshape(-1, self.groups) + middle, (n, self.groups))
        return unpack_words(lying.T, self.bits)[:, :n].T.astype(np.int32)

    def scales(self) -> F32:
        """[N, groups]."""
        scale = floats(self.stored, self.scale).reshape(-1, self.groups)
        return np.ascontiguousarray(np.broadcast_to(scale, (self.shape[0], self.groups)))


def _read(source: _Source, group: int | None, kind: str | None) -> Encoded | F32:
    codes, scale, zero = source.codes(), source.scales(), source.zero()
    if zero.min(initial=0) < 0 or zero.max(initial=0) > 255:
        raise WeightMismatch(f"tensor {short(str(source.zeros))} holds zero points outside the range of the codes")
    if kind is not None and group is not None:
        return integer_matrix(codes, scale, zero, group, kind)
    k = source.shape[1]
    index = np.arange(k) // (group or k)
    if source.order is not None:
        index = array(source.stored, source.order).astype(np.int64)
        if index.max() >= source.groups:
            raise WeightMismatch(f"tensor {short(source.order)} names group {index.max()} of {source.groups}")
    numbers: F32 = (codes.astype(np.int32) - zero[:, index]).astype(np.float32) * scale[:, index]
    return numbers


def _progressive(matrix: Matrix) -> Matrix:
    """The same numbers with whole multiples of one scale a channel, which is what the file says they are."""
    e = None if matrix.encoding is None else encoding(matrix.encoding)
    name = f"int4p.g{e.group}" if e is not None and e.bits == 4 else ""
    if name not in ENCODINGS:
        return matrix

    def read() -> Encoded:
        plain = matrix.read()
        found = as_progressive(plain) if isinstance(plain, Encoded) else None
        if found is None:
            raise WeightMismatch(
                f"{short(matrix.name)} is said to be progressive ({METADATA_KEY} in the file's header), but its scales "
                "are no small multiples of one number; the checkpoint was changed after it was quantized"
            )
        return found

    return replace(matrix, encoding=name, read=read)


def _num_groups(stored: StoredTensors, scale: str, n: int) -> int:
    shape = stored.shape(scale)
    if shape in ((), (1,), (n,)):
        return 1
    if len(shape) == 2 and shape[0] in (n, 1) and shape[1] > 0 and (shape[0] == n or shape[1] == 1):
        return shape[1]
    raise WeightMismatch(f"tensor {short(scale)} is {list(shape)} for {n} outputs; blocks are read of float8 only")


def _check_zeros(stored: StoredTensors, zeros: str, shape: tuple[int, int], bits: int) -> None:
    n, groups = shape
    if stored.type_name(zeros) == "I32":
        require(stored, zeros, ("I32",), (-(-n * bits // 32), groups))
    elif int(np.prod(stored.shape(zeros), dtype=object)) not in (n * groups, groups):
        require(stored, zeros, ("I8",), shape)
    else:
        require(stored, zeros, ("I8",))


def _four_bit_floats(stored: StoredTensors, module: str) -> Matrix:
    if f"{module}.weight_global_scale" in stored:
        return nvfp4_matrix(stored, module, "weight_packed", "weight_global_scale", is_divisor=True)
    return mxfp4_matrix(stored, f"{module}.weight", f"{module}.weight_packed", f"{module}.weight_scale")


def parse(fields: Fields) -> CompressedTensors:
    """Raises: ModelError, UnsupportedModel."""
    _check_format(fields, "format")
    sparsity = fields.table("sparsity_config") or {}
    if sparsity.get("format", "dense") != "dense":
        fields.unsupported("sparsity_config", sparsity, "supported: format dense")
    transform = fields.table("transform_config") or {}
    if transform.get("config_groups"):
        fields.unsupported("transform_config", transform, "online transforms of activations are not computed")
    groups = list[_Group]()
    for name, group in (fields.table("config_groups") or {}).items():
        if not isinstance(group, dict):
            fields.fail(f"config_groups.{name}", group, "must be an object")
        groups.append(_Group.parse(Fields(group, f"quantization_config.config_groups.{name}")))
    left_out = parse_left_out(fields, "ignore")
    fields.refuse_unread(_IGNORABLE, {})
    ints = [group for group in groups if group.width]
    return CompressedTensors(
        groups=tuple(dict.fromkeys(group.size for group in groups if group.size)),
        block=next((group.block for group in groups if group.block), None),
        is_weight_only=any(group.is_weight_only for group in groups),
        held=groups[0].held if groups else None,
        left_out=left_out,
        widths=tuple(dict.fromkeys(group.width for group in groups if group.width)) or _BITS[:2],
        # which group a matrix is of, nobody asks: what all of them have
        needs=frozenset[str].intersection(*(group.needs for group in ints)) if ints else frozenset(),
    )


def _check_format(fields: Fields, key: str) -> None:
    fields.one_of(key, _FORMATS, "dense")


@dataclass(frozen=True, slots=True)
class _Group:
    """What an entry of config_groups says of weights.

    Fields: size: of groups of inputs. width: of ints. block, is_weight_only, held, needs: as in CompressedTensors.
    """

    size: int | None = None
    width: int | None = None
    block: tuple[int, int] | None = None
    held: str | None = None
    is_weight_only: bool = False
    needs: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, fields: Fields) -> _Group:
        """Raises: ModelError, UnsupportedModel."""
        _check_format(fields, "format")
        weights: dict[str, Any] | None = fields.table("weights")
        if weights is None:
            return cls()
        inner = Fields(weights, f"{fields.where}.weights")
        bits, kind = inner.integer("num_bits", 1, 32, default=8), inner.text("type", "int")
        size = inner.optional_integer("group_size", -1, 2**20)
        if (kind, bits) not in (*(("int", width) for width in _BITS), ("float", 8), ("float", 4)):
            inner.unsupported(
                "num_bits", bits, f"of type {short(kind)}; supported: int 2 to 8, float 8, and float 4 (MXFP4, NVFP4)"
            )
        if kind == "float" and bits == 4 and size not in (32, 16):
            inner.unsupported("group_size", size, "supported for float 4 bits: 32 (MXFP4) and 16 (NVFP4)")
        block = parse_block(inner, "block_structure")
        is_symmetric, order = inner.flag("symmetric", True), inner.raw("actorder")
        inner.refuse_unread(_WEIGHT_KEYS, {})
        has_groups = size is not None and size > 0
        if kind == "float":
            groups = (1, size) if size is not None and size > 0 else None
            held = fp8_encoding(block or groups) if bits == 8 else f"fp4.g{size}"
            return cls(size, None, block, held, fields.table("input_activations") is None)
        held = integer_encoding(bits, *whole_or(size or -1)) if order in (None, "weight", "static", False) else None
        needs = {_ZERO: not is_symmetric, _ORDER: order == "group"}
        return cls(
            size=size,
            width=bits,
            block=block,
            held="int8" if bits == 8 and not has_groups and is_symmetric else held,
            needs=frozenset(part for part, is_needed in needs.items() if is_needed),
        )
