"""Sums of token rows and nested weights, as matrix units multiply codes of 8 bits: chain_groups.py of such weights.

Codes of 2 to 6 bits become numbers of 8 bits in registers: themselves beside an offset, less half of all without one,
or what a table of 8 or 16 bytes says. A nest's sum, of its groups times the bytes of their scales, is a whole number
below 2^30, exact; so is that of its offsets, below 2^24. Nests are added as one chain of float32, ascending, first
sums times the nest's float16, then offsets times theirs, multiply-adds fused: bits are the same whatever the tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP, mma
from albireo.backends.cuda.matrix import PLANE
from albireo.backends.cuda.tokens import SUM_STEP
from albireo.encodings import NEST

#: How codes become numbers; see encodings.py.
NESTED_KINDS = {"nested": 4, "nested affine": 5, "nested table": 6}
_NESTED, _AFFINE, _TABLE = (tl.constexpr(code) for code in NESTED_KINDS.values())
_PLANE, _NEST, _SUM_STEP = tl.constexpr(PLANE), tl.constexpr(NEST), tl.constexpr(SUM_STEP)


@triton.jit
def chain_of_nests(
    codes, codes_stride, high, x, x_stride, sums_at, row, token, k, num_rows, scale, zero, offset, gamma,
    KIND: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, TABLE: tl.constexpr, UNIT: tl.constexpr,
    EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """[ROWS, TOKENS] float32, what a token's scale is still to multiply.

    codes, high: a matrix's codes as elements of their low bits, and of those above, see matrix.py; gamma, zero: eight
    groups an element of 64 bits; TABLE, UNIT: see group_operands.py; else as chain_of_groups(), a step being a nest.
    """
    LOW: tl.constexpr = 4 if BITS >= 4 else 2
    HIGH: tl.constexpr = BITS - LOW
    COUNT: tl.constexpr = _NEST // GROUP
    at = tl.arange(0, _PLANE)
    row_at = row.to(tl.int64)[:, None] * codes_stride
    low_at = codes + row_at + at[None, :]
    high_at = low_at
    if HIGH > 0:
        high_at = high + row_at * LOW // HIGH + _PLANE * LOW // HIGH + at[None, :]
    x_at = x + token[None, :] * x_stride + at[:, None]
    total = tl.zeros((ROWS, TOKENS), tl.float32)
    last = tl.cdiv(k, _NEST) - 1
    # numbers of a nest are on their way while the nest before is computed
    by, by_rest, less, less_rest = _of_groups(gamma, zero, 0, num_rows, row, KIND, COUNT)
    scales, offsets = _of_nest(scale, offset, 0, num_rows, row, KIND, UNIT)
    for step in range(0, last + 1):
        low = tl.load(low_at + step * (_PLANE * BITS // LOW))
        above = low
        if HIGH > 0:
            above = tl.load(high_at + step * (_PLANE * BITS // HIGH))
        ahead = tl.minimum(step + 1, last)
        next_by, next_by_rest, next_less, next_less_rest = _of_groups(gamma, zero, ahead, num_rows, row, KIND, COUNT)
        next_scales, next_offsets = _of_nest(scale, offset, ahead, num_rows, row, KIND, UNIT)
        products = tl.zeros((ROWS, TOKENS), tl.int32)
        shifts = tl.zeros((ROWS, TOKENS), tl.float32)
        for group in tl.static_range(COUNT):
            b = _inputs(x_at, at, step * _NEST + group * GROUP // _PLANE * _PLANE, k, EVEN_K)
            # of half a plane the other half stands for zeros
            some = _of_group(low, at, group, GROUP, _zeros(KIND, BITS, TABLE, 0))
            some_above = above
            if HIGH > 0:
                some_above = _of_group(above, at, group, GROUP, _zeros(KIND, BITS, TABLE, 1))
            number = _plane_of(some, some_above, group * GROUP // _PLANE, BITS, KIND == _NESTED)
            if KIND == _TABLE:
                number = _looked_up(number, BITS, TABLE)
            sums = mma(number, b, tl.zeros((ROWS, TOKENS), tl.int32))
            products += _byte(by if group < 8 else by_rest, group % 8, KIND)[:, None] * sums
            if KIND == _AFFINE:
                x_sum = _sum_of_codes(sums_at, step * _NEST + group * GROUP, GROUP, k)
                of_group = _byte(less if group < 8 else less_rest, group % 8, KIND).to(tl.float32)
                shifts = tl.fma(of_group[:, None], x_sum[None, :], shifts)
        total = tl.fma(products.to(tl.float32), scales[:, None], total)
        if KIND == _AFFINE:
            total = tl.fma(shifts, offsets[:, None], total)
        by, by_rest, less, less_rest = next_by, next_by_rest, next_less, next_less_rest
        scales, offsets = next_scales, next_offsets
    return total


@triton.jit
def _of_groups(gamma, zero, nest, num_rows, row, KIND: tl.constexpr, COUNT: tl.constexpr):
    """Bytes of the scales of eight groups, and of eight more where there are, and the same of offsets."""
    at = nest * (COUNT // 8) * num_rows + row
    by = tl.load(gamma + at)
    by_rest, less, less_rest = by, by, by
    if COUNT > 8:
        by_rest = tl.load(gamma + at + num_rows)
    if KIND == _AFFINE:
        less = tl.load(zero + at)
        if COUNT > 8:
            less_rest = tl.load(zero + at + num_rows)
    return by, by_rest, less, less_rest


@triton.jit
def _byte(word, i: tl.constexpr, KIND: tl.constexpr):
    """One of eight, in int32; without offsets they have a sign."""
    byte = (word >> (8 * i)).to(tl.int32)
    if KIND == _AFFINE:
        return byte & 255
    return (byte << 24) >> 24


@triton.jit
def _of_nest(scale, offset, nest, num_rows, row, KIND: tl.constexpr, UNIT: tl.constexpr):
    at = nest * num_rows + row
    by = tl.load(scale + at).to(tl.float32) * UNIT
    least = by
    if KIND == _AFFINE:
        least = tl.load(offset + at).to(tl.float32)
    return by, least


@triton.jit
def _of_group(words, at, group: tl.constexpr, GROUP: tl.constexpr, ZEROS: tl.constexpr):
    """Elements of a plane's half that a group is, ZEROS in place of the other's; all where a group is a plane."""
    if GROUP == _PLANE:
        return words
    return tl.where(((at + group * GROUP // _PLANE * _PLANE) // GROUP == group)[None, :], words, ZEROS).to(words.dtype)


@triton.constexpr_function
def _zeros(kind: int, bits: int, table: str, is_high: int) -> int:
    """An element of eight codes that stand for 0, of their low bits or of those above, as a signed number."""
    low = 4 if bits >= 4 else 2
    code = 0
    if kind == NESTED_KINDS["nested"]:
        code = 1 << (bits - 1)
    elif kind == NESTED_KINDS["nested table"]:
        code = bytes.fromhex(table).index(0) if bytes(1) in bytes.fromhex(table) else 0
    part, size = (code >> low, bits - low) if is_high else (code & ((1 << low) - 1), low)
    found = sum(part << (size * i) for i in range(8))
    return found - (1 << (8 * size)) if found >> (8 * size - 1) else found


@triton.jit
def _sum_of_codes(sums, first, GROUP: tl.constexpr, k):
    """Of each token the sum of a group's codes; see sum_at() in csrc's tokens.h."""
    before = tl.cdiv(tl.minimum(first, k), _SUM_STEP)
    end = tl.cdiv(tl.minimum(first + GROUP, k), _SUM_STEP)
    return tl.load(sums + end) - tl.load(sums + before)


@triton.jit
def _inputs(x_at, at, first, k, EVEN_K: tl.constexpr):
    if EVEN_K:
        return tl.load(x_at + first)
    return tl.load(x_at + first, mask=(at < k - first)[:, None], other=0)


@triton.constexpr_function
def _extraction(plane: int, bits: int, is_signed: bool) -> str:
    """PTX that takes four codes of a plane out of elements of their low bits, $1 on, and of those above; signed: less
    half of all."""

    def pair(first: int, byte: int, name: str) -> str:
        """A byte of each of four elements of 16 bits in two registers."""
        return f"prmt.b32 {name}, ${first}, ${first + 1}, {'0x6420' if byte == 0 else '0x7531'};"

    def moved(by: int, name: str) -> str:
        """Left, or, below zero, right."""
        return f"shl.b32 {name}, {name}, {by};" if by > 0 else f"shr.b32 {name}, {name}, {-by};" if by < 0 else ""

    low = 4 if bits >= 4 else 2
    high, behind = bits - low, low + 1
    if low == 4:
        pick = f"0x00{plane // 2 + 4}{plane // 2}"
        text = f"prmt.b32 t, $1, $2, {pick}; prmt.b32 u, $3, $4, {pick}; prmt.b32 t, t, u, 0x5410;"
    else:
        text = pair(1, plane // 4, "t")
    text += f"{moved(-(plane * low % 8), 't')} and.b32 t, t, {'0x0F0F0F0F' if low == 4 else '0x03030303'};"
    if high:
        text += f"mov.b32 u, ${behind};" if high == 1 else pair(behind, plane // 4, "u")
        text += f"{moved(low - plane * high % 8, 'u')} and.b32 u, u, 0x{((1 << high) - 1 << low) * 0x01010101:08X};"
        text += "or.b32 t, t, u;"
    if is_signed:  # no byte borrows of the one above it
        text += f"or.b32 t, t, 0x80808080; sub.u32 t, t, 0x{(1 << bits - 1) * 0x01010101:08X};"
        text += "xor.b32 t, t, 0x80808080;"
    return "{ .reg .b32 t, u; " + text + " mov.b32 $0, t; }"


@triton.constexpr_function
def _table_asm(bits: int, table: str) -> str:
    """PTX that makes of four places in a table, a byte each, its numbers; table: 8 or 16 bytes in hexadecimal."""
    words = [f"0x{int.from_bytes(bytes.fromhex(table[i : i + 8]), 'little'):08X}" for i in range(0, len(table), 8)]
    # lower three bits side by side pick bytes of eight
    text = "shr.u32 s, $1, 4; or.b32 s, s, $1; prmt.b32 s, s, s, 0x0020; and.b32 s, s, 0x7777;"
    if bits == 3:
        return "{ .reg .b32 s; " + text + f" prmt.b32 $0, {words[0]}, {words[1]}, s; " + "}"
    # the fourth, spread over its byte, says of which eight
    text += f" prmt.b32 p, {words[0]}, {words[1]}, s; prmt.b32 n, {words[2]}, {words[3]}, s;"
    text += " shl.b32 s, $1, 4; prmt.b32 s, s, s, 0xBA98; lop3.b32 $0, s, n, p, 0xCA;"
    return "{ .reg .b32 s, p, n; " + text + " }"


@triton.constexpr_function
def _registers(bits: int) -> str:
    """Of four codes: a register holds four elements of 8 bits, two of 16 or one of 32."""
    low = 4 if bits >= 4 else 2
    return ",".join(["=r", *["r"] * (low + bits - low)])


@triton.constexpr_function
def _number(table: str, i: int) -> int:
    return int.from_bytes(bytes.fromhex(table[2 * i : 2 * i + 2]), "little", signed=True)


@triton.jit
def _plane_of(low, above, PLANE_AT: tl.constexpr, BITS: tl.constexpr, SIGNED: tl.constexpr):
    """Codes of a plane, as int8; signed: less half of all."""
    LOW: tl.constexpr = 4 if BITS >= 4 else 2
    HIGH: tl.constexpr = BITS - LOW
    if INTERP:
        code = (low.to(tl.int32) >> (LOW * PLANE_AT)) & ((1 << LOW) - 1)
        if HIGH > 0:
            code |= ((above.to(tl.int32) >> (HIGH * PLANE_AT)) & ((1 << HIGH) - 1)) << LOW
        return (code - (1 << (BITS - 1))).to(tl.int8) if SIGNED else code.to(tl.int8)
    ASM: tl.constexpr = _extraction(PLANE_AT, BITS, SIGNED)
    REGISTERS: tl.constexpr = _registers(BITS)
    if HIGH > 0:
        return tl.inline_asm_elementwise(ASM, REGISTERS, [low, above], dtype=tl.int8, is_pure=True, pack=4)
    return tl.inline_asm_elementwise(ASM, REGISTERS, [low], dtype=tl.int8, is_pure=True, pack=4)


@triton.jit
def nested_number(code, BITS: tl.constexpr, TABLE: tl.constexpr):
    """The numbers that codes in int32 stand for beside no offset: of a table, or less half of all."""
    if TABLE == "":
        return code - (1 << (BITS - 1))
    number = tl.zeros_like(code)
    for i in tl.static_range(1 << BITS):
        number = tl.where(code == i, _number(TABLE, i), number)
    return number


@triton.jit
def _looked_up(code, BITS: tl.constexpr, TABLE: tl.constexpr):
    """The numbers of places in a table, both int8."""
    if INTERP:
        return nested_number(code.to(tl.int32), BITS, TABLE).to(tl.int8)
    ASM: tl.constexpr = _table_asm(BITS, TABLE)
    return tl.inline_asm_elementwise(ASM, "=r,r", [code], dtype=tl.int8, is_pure=True, pack=4)
