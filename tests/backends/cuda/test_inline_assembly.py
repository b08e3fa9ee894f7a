"""What kernels say in PTX, executed here instruction by instruction: Triton's interpreter has other branches there.

A code's number is asked of each plane of a word, of all codes. How operands lie in registers is Triton's: the elements
of an operand one behind another, as many as fit into 32 bits in each.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.group_operands import constants_of, constants_of_codes
from albireo.backends.cuda.kernels.parts import arithmetic, chain, chain_fp4, chain_groups, chain_nests, microscaled
from albireo.backends.cuda.matrix import high_bits, low_bits
from albireo.encodings import ENCODINGS, Encoding, encoding
from albireo.quantization.encoded import NUMBERS, nested_numbers

U32 = NDArray[np.uint32]
_TYPES = {"int8": np.int8, "bfloat16": np.uint16, "float32": np.float32}


def numbers_of(bits: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Of bfloat16, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def bits_of(numbers: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Of bfloat16, to nearest even. numbers: that float32 holds."""
    rounded = torch.from_numpy(numbers.astype(np.float32)).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().view(np.uint16)


def permuted(a: U32, b: U32, selector: U32) -> U32:
    """prmt: of each nibble of the selector a byte of the eight of a and b, or its sign in all places."""
    given = np.stack([(a if i < 4 else b) >> np.uint32(8 * (i % 4)) & np.uint32(0xFF) for i in range(8)])
    found = np.zeros_like(a)
    for i in range(4):
        nibble = np.broadcast_to(selector >> np.uint32(4 * i) & np.uint32(15), a.shape)
        byte = np.take_along_axis(given, (nibble & 7)[None].astype(np.int64), 0)[0]
        byte = np.where(nibble & 8, np.where(byte & 0x80, 0xFF, 0), byte)
        found |= byte.astype(np.uint32) << np.uint32(8 * i)
    return found


def looked_up(a: U32, b: U32, c: U32, table: U32) -> U32:
    """lop3: of the bits at a place the bit of a table of eight."""
    found = np.zeros_like(a)
    for i in range(8):
        if int(table.flat[0]) >> i & 1:
            found |= (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
    return found


def fused(a: U32, b: U32, c: U32) -> U32:
    """fma.rn.bf16x2: exact in float64 for these numbers, then rounded once."""
    halves = [
        bits_of(numbers_of(x) * numbers_of(y) + numbers_of(z))
        for x, y, z in (
            ((a >> s).astype(np.uint16), (b >> s).astype(np.uint16), (c >> s).astype(np.uint16)) for s in (0, 16)
        )
    ]
    return halves[0].astype(np.uint32) | halves[1].astype(np.uint32) << np.uint32(16)


def to_whole(a: U32) -> U32:
    return np.rint(a.view(np.float32)).view(np.uint32)


_DO: dict[str, Callable[..., U32]] = {
    "mov.b32": lambda a: a,
    "prmt.b32": permuted,
    "lop3.b32": looked_up,
    "shl.b32": lambda a, b: a << b,
    "shr.b32": lambda a, b: a >> b,
    "shr.u32": lambda a, b: a >> b,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b,
    "sub.u32": lambda a, b: a - b,
    "fma.rn.bf16x2": fused,
    "cvt.rni.f32.f32": to_whole,
}


def execute(asm: str, constraints: str, args: list[NDArray[Any]], dtype: str, is_pure: bool, pack: int) -> NDArray[Any]:
    """As tl.inline_asm_elementwise. Raises: KeyError for an instruction that is not known here."""
    shape, count = args[0].shape, args[0].size // pack
    registers = {}
    for arg in args:
        words = np.ascontiguousarray(arg).reshape(count, pack).view(np.uint32)
        for i in range(words.shape[1]):
            registers[f"${len(registers) + 1}"] = words[:, i]
    assert len(constraints.split(",")) == 1 + len(registers)
    for line in asm.strip(" \n{}").split(";"):
        if not line.strip() or line.split()[0] == ".reg":
            continue
        name, rest = line.split(maxsplit=1)
        to, *names = (each.strip() for each in rest.split(","))
        given = [registers[each] if each in registers else np.full(count, int(each, 0), np.uint32) for each in names]
        registers[to] = _DO[name](*given)
    return np.ascontiguousarray(registers["$0"]).view(_TYPES[dtype]).reshape(shape)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NDArray[Any]]:
    """Calls a function of a kernel with arrays, on the branch that is compiled."""

    def call(module: ModuleType, name: str, *args: Any, **constants: Any) -> NDArray[Any]:
        language = SimpleNamespace(
            inline_asm_elementwise=lambda asm, constraints, args, **how: execute(asm, constraints, args, **how),
            broadcast_to=np.broadcast_to,
            **{dtype: dtype for dtype in _TYPES},
        )
        monkeypatch.setattr(module, "tl", language)
        monkeypatch.setattr(module, "INTERP", False)
        found: NDArray[Any] = getattr(module, name).fn(*args, **constants)
        return found

    return call


def words_with(codes: NDArray[np.int64], bits: int, plane: int) -> NDArray[np.int32]:
    """[1, codes] words that have a code each in a plane, and others beside it."""
    around = np.random.default_rng(plane).integers(0, 1 << 32, codes.size, dtype=np.uint64)
    at, mask = bits * plane, (1 << bits) - 1
    words = around & ~np.uint64(mask << at) | codes.astype(np.uint64) << np.uint64(at)
    return words.astype(np.uint32).view(np.int32)[None, :]


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


@pytest.mark.parametrize("plane", range(4))
def test_a_code_of_e4m3_is_its_number(plane: int, compiled: Callable[..., NDArray[Any]]) -> None:
    codes = np.array([code for code in range(256) if code & 0x7F != 0x7F])
    wanted = torch.from_numpy(codes.astype(np.uint8)).view(torch.float8_e4m3fn).double().numpy()
    found = compiled(chain, "e4m3_to_bfloat16", words_with(codes, 8, plane), PLANE_AT=plane)
    assert np.array_equal(numbers_of(found[0]), wanted)


@pytest.mark.parametrize("plane", range(8))
def test_a_code_of_4_bits_is_its_number(plane: int, compiled: Callable[..., NDArray[Any]]) -> None:
    """Less each zero point; times scales of up to four significant bits; as a byte; and twice it, as a whole one."""
    codes = np.arange(16)
    words = words_with(codes, 4, plane)
    for zero in range(16):
        found = compiled(chain, "nibble_to_bfloat16", words, bits_of(np.array([-128.0 - zero])), PLANE_AT=plane)
        assert np.array_equal(numbers_of(found[0]), codes - zero)
    numbers = np.where(codes & 8, -E2M1[codes & 7], E2M1[codes & 7])
    for scale in (2.0**-9, 1.875, 13.0, 448.0, 2.0**100, 2.0**-120):
        scales = np.full((1, 16), bits_of(np.array([scale]))[0])
        found = compiled(chain_fp4, "fp4_to_bfloat16", words, scales, PLANE_AT=plane)
        assert np.array_equal(numbers_of(found[0]), numbers * scale), scale
    found = compiled(chain_groups, "_nibble", words, PLANE_AT=plane)
    assert np.array_equal(found[0], codes)
    assert np.array_equal(compiled(microscaled, "twice_e2m1", found)[0], 2 * numbers)


def elements_with(parts: NDArray[np.int64], bits: int, plane: int) -> NDArray[Any]:
    """[1, codes] elements of eight times as many bits that have a part of a code each in a plane, others beside it."""
    around = np.random.default_rng(plane).integers(0, 1 << (8 * bits), parts.size, dtype=np.uint64)
    at, mask = bits * plane, (1 << bits) - 1
    words = around & ~np.uint64(mask << at) | parts.astype(np.uint64) << np.uint64(at)
    return words.astype({1: np.uint8, 2: np.uint16, 4: np.uint32}[bits])[None, :]


@pytest.mark.parametrize("plane", range(8))
@pytest.mark.parametrize("bits", range(2, 7))
def test_a_code_of_a_nest_is_its_number(bits: int, plane: int, compiled: Callable[..., NDArray[Any]]) -> None:
    """As it is, and less half of all."""
    codes, low = np.arange(1 << bits), 4 if bits >= 4 else 2
    above = elements_with(codes >> low, bits - low, plane) if bits > low else None
    given = elements_with(codes & ((1 << low) - 1), low, plane), above
    for signed in (False, True):
        found = compiled(chain_nests, "_plane_of", *given, PLANE_AT=plane, BITS=bits, SIGNED=signed)
        assert np.array_equal(found[0], codes - (1 << (bits - 1) if signed else 0))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_place_in_a_table_is_its_number(name: str, compiled: Callable[..., NDArray[Any]]) -> None:
    codes = np.arange(1 << encoding(name).bits, dtype=np.int8)[None, :]
    told = constants_of_codes(encoding(name))
    found = compiled(chain_nests, "_looked_up", codes, BITS=told["BITS"], TABLE=told["TABLE"])
    assert np.array_equal(found[0], NUMBERS[name][0][codes[0]])


@pytest.mark.parametrize("e", [e for e in ENCODINGS.values() if e.is_nested and e.group == 16], ids=str)
def test_what_is_not_of_a_group_stands_for_zeros(e: Encoding) -> None:
    told, code = constants_of(e), 0
    for is_high, size in enumerate((low_bits(e), high_bits(e))):
        if size:
            element = chain_nests._zeros(told["KIND"], e.bits, told["TABLE"], is_high)
            assert -(1 << (8 * size - 1)) <= element < 1 << (8 * size - 1)
            parts = {element >> (size * plane) & ((1 << size) - 1) for plane in range(8)}
            assert len(parts) == 1
            code |= parts.pop() << (low_bits(e) * is_high)
    if e.kind == "nested affine":
        assert code == 0
    else:
        assert nested_numbers(e, np.array([code], np.uint8)) == 0


def test_numbers_are_rounded_to_whole_ones_and_left_alone(compiled: Callable[..., NDArray[Any]]) -> None:
    numbers = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.49, -127.0, 4194303.5], np.float32)
    assert np.array_equal(compiled(arithmetic, "round_to_int", numbers), np.rint(numbers))
    assert np.array_equal(compiled(arithmetic, "awaited", numbers), numbers)
