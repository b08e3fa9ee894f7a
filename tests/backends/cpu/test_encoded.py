"""Weights in few bits: kernels and packings against numpy on the codes themselves, at every level and shape.

Integer sums are exact, so an answer is one number for the encodings of one scale a channel; of groups, a chain of
float32, it is the same number wherever multiply-adds are fused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.kv_view import token_numbers
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.pack_encoded import _addresses
from albireo.backends.reference.rounding import bfloat16_bits, from_bfloat16_bits
from albireo.compiler.layouts import packed_bytes
from albireo.dtypes import TOKEN, natural_stride
from albireo.encodings import ENCODINGS, encoding
from albireo.quantization.encoded import E2M1_VALUES, Encoded, gamma_values, nested_numbers
from albireo.quantization.rounding import round_tokens, round_weights
from backends.cpu.encoded_linears import linear, panels, random_encoded, run, step, tokens

INTEGERS = [name for name, item in ENCODINGS.items() if item.kind != "float"]
SHAPES = [(1, 64), (3, 100), (64, 128), (70, 36), (130, 200), (5, 5), (16, 1000)]
ROWS = [1, 2, 7, 24, 25, 29, 48, 50, 101]
F32 = NDArray[np.float32]


def levels_of(family: str, of: str = "integers") -> list[str]:
    known = {level for name, kind, level in _native.kernels() if name == family and kind in ("any", of)}
    return [level for level in isa_levels() if level in known]


def reference(codes: F32, scale: F32, encoded: Encoded) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the product is, and the sum of magnitudes its rounding is measured by."""
    weight = encoded.decode().astype(np.float64)
    if encoded.zero is not None and not encoded.encoding.is_nested:
        groups = encoded.codes.astype(np.float64) - encoded._spread(encoded.zero.astype(np.float32))
        if encoded.gamma is not None:
            groups = groups * encoded._spread(encoded.gamma.astype(np.float32))
        weight = groups * encoded._spread(encoded.scale)
    x = codes.astype(np.float64) * scale
    return x @ weight.T, np.abs(x) @ np.abs(weight).T


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("level", levels_of("linear"))
def test_a_linear_is_the_product_of_its_codes(name: str, level: str) -> None:
    for (n, k), m in zip(SHAPES * 2, [*ROWS, *ROWS], strict=False):
        encoded = random_encoded(encoding(name), n, k, seed=n * k + m)
        x = np.random.default_rng(m).normal(size=(m, k)).astype(np.float32)
        rows = tokens(x, "scalar")
        codes, scale = round_tokens(x)
        found = linear(rows, encoded, panels(encoded), level)
        wanted, size = reference(codes, scale, encoded)
        groups = encoded.encoding.num_groups(k)
        assert np.all(np.abs(found - wanted) <= (groups + 4) * 2.0**-23 * size + 1e-30), (n, k, m)
        assert np.all(found[:, n // 2] == 0) or encoded.offset is not None


@pytest.mark.parametrize("name", INTEGERS)
def test_levels_rows_and_threads_give_the_same_bits(name: str) -> None:
    """Portable code has no fused multiply-add, so of groups it has bits of its own."""
    encoded = random_encoded(encoding(name), 150, 328, seed=1)
    packed = panels(encoded)
    x = np.random.default_rng(2).normal(size=(103, 328)).astype(np.float32)
    rows = tokens(x, "scalar")
    is_whole = encoding(name).group is None or encoding(name).kind == "progressive"
    levels = levels_of("linear")
    alike = linear(rows, encoded, packed, levels[0])
    for level in levels:
        wanted = alike if is_whole or level != "scalar" else linear(rows, encoded, packed, level)
        np.testing.assert_array_equal(linear(rows, encoded, packed, level, threads=2), wanted)
        for start, stop in ((0, 1), (5, 9), (40, 68), (3, 103)):
            part = linear(np.ascontiguousarray(rows[start:stop]), encoded, packed, level)
            np.testing.assert_array_equal(part, wanted[start:stop])


@pytest.mark.parametrize("level", levels_of("linear"))
@pytest.mark.parametrize(
    ("name", "k"),
    [("int8.g16", 4101), ("int4.g32.affine", 16417), ("fp4.g16", 4101), ("q6_k", 8448), ("q4_k", 8448)],
)
def test_more_groups_than_are_noted_at_once(name: str, k: int, level: str) -> None:
    """Sums of 256 groups are; the last group of two of these is short."""
    encoded = random_encoded(encoding(name), 66, k, seed=3)
    packed = panels(encoded)
    x = np.random.default_rng(2).normal(size=(20, k)).astype(np.float32)
    rows = tokens(x, "scalar")
    found = linear(rows, encoded, packed, level)
    wanted, size = reference(*round_tokens(x), encoded)
    assert np.all(np.abs(found - wanted) <= 8 * 2.0**-23 * size + 1e-30)
    for start, stop in ((0, 1), (2, 6), (7, 19), (3, 12)):
        part = linear(np.ascontiguousarray(rows[start:stop]), encoded, packed, level)
        np.testing.assert_array_equal(part, found[start:stop])


@pytest.mark.parametrize("name", [name for name in INTEGERS if encoding(name).kind == "microscaled"])
def test_four_bits_give_the_bits_of_eight(name: str) -> None:
    """Twice an e2m1 number is a whole one, and a power of two, or an e4m3 number, a scale that int8.gG stores."""
    few = random_encoded(encoding(name), 70, 200, seed=4)
    few.scale[:] = 0.25  # which int8.gG has in the scales of its groups
    whole = (E2M1_VALUES[few.codes] * 2 + 128).astype(np.uint8)
    scale = gamma_values(few.encoding)[few.gamma] * np.float32(0.125)
    wide = Encoded(encoding(name.replace("fp4", "int8")), whole, scale, np.full(scale.shape, 128, np.uint8))
    np.testing.assert_array_equal(wide.decode(), few.decode())
    rows = tokens(np.random.default_rng(1).normal(size=(60, 200)).astype(np.float32), "scalar")
    for level in levels_of("linear"):
        for m in (1, 3, 20, 60):
            found = linear(rows[:m], few, panels(few), level)
            np.testing.assert_array_equal(found, linear(rows[:m], wide, panels(wide), level))


@pytest.mark.parametrize("name", [name for name in INTEGERS if encoding(name).is_nested])
def test_nests_give_the_bits_of_groups(name: str) -> None:
    """A float16 times a byte is an exact scale, so a sum is that of codes with a float32 for each group."""
    n, k = 70, 1000
    nested = random_encoded(encoding(name), n, k, seed=4)
    if encoding(name).kind in ("nested", "nested table"):
        nested.scale[:] = np.float32(2.0**-7)  # whose products have 8 bits: int8.gG has 16
    scale, offset = nested.of_groups()
    wide = encoding("int8.g32.affine" if encoding(name).group == 32 else "int8.g16.affine")
    zero, codes = None, nested.codes
    if offset is None:
        codes = (nested_numbers(nested.encoding, codes) + 128).astype(np.uint8)
        wide, zero = encoding(wide.name.removesuffix(".affine")), np.full(scale.shape, 128, np.uint8)
    plain = Encoded(wide, codes, scale, zero, offset=offset)
    np.testing.assert_array_equal(plain.decode(), nested.decode())
    rows = tokens(np.random.default_rng(1).normal(size=(60, k)).astype(np.float32), "scalar")
    for level in levels_of("linear"):
        for m in (1, 2, 3, 8, 9, 20, 60):
            found = linear(rows[:m], nested, panels(nested), level)
            np.testing.assert_array_equal(found, linear(rows[:m], plain, panels(plain), level))


@pytest.mark.parametrize("level", levels_of("elementwise"))
@pytest.mark.parametrize("k", [1, 15, 64, 100, 896])
def test_tokens_are_rounded_as_defined(level: str, k: int) -> None:
    x = np.random.default_rng(k).normal(size=(9, k)).astype(np.float32)
    x[1] = 0
    x[2] = 1e-42
    x[3, 0] = 1e4
    x[4] *= 1e37
    rows = tokens(x, level)
    codes, scale = round_tokens(x)
    np.testing.assert_array_equal(rows[:, :k].view(np.int8), codes)
    np.testing.assert_array_equal(token_numbers(rows, k), codes * scale)
    start = -(-k // 64) * 64
    assert (rows[:, k:start] == 0).all()
    sums = rows[:, start + 4 : start + 8 + 4 * -(-k // 16)].copy().view(np.float32)
    whole = np.add.reduceat(codes, np.arange(0, k, 16), axis=1).cumsum(axis=1)
    np.testing.assert_array_equal(sums, np.concatenate([np.zeros((9, 1)), whole], axis=1))


@pytest.mark.parametrize("level", levels_of("elementwise"))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_no_number_spoils_itself_only(level: str, bad: float) -> None:
    x = np.ones((3, 70), np.float32)
    x[1, 69] = bad
    encoded = random_encoded(encoding("int8"), 64, 70, seed=0)
    found = linear(tokens(x, level), encoded, panels(encoded), levels_of("linear")[0])
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("level", levels_of("embed"))
def test_an_embedding_reads_the_panels_of_the_head(name: str, level: str) -> None:
    encoded = random_encoded(encoding(name), 130, 72, seed=3)
    packed = panels(encoded)
    out = np.zeros((130, 72), np.float32)
    args = {"weight": packed.ctypes.data, "w_dtype": name, "packed": 1, "out": out.ctypes.data, "k": 72}
    program = _native.Program(thread_pool(1), 4)
    program.add("embed", level, name, args | {"rows": "T"})
    inputs = step(130)
    inputs.token_ids[:] = np.arange(130)
    program.run(*inputs.arrays, np.zeros((4, 65), np.int32), np.zeros((4, 65), np.float32))
    np.testing.assert_allclose(out, encoded.decode(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["int8", "int8.g32", "int8.g128", "int4.g32", "int4.g64", "int4.g128", "fp4.g32", "fp4.g16"]
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers_are_rounded_as_numpy_does_it(name: str, dtype: str) -> None:
    kind: Any = np.dtype(dtype)
    weight = np.random.default_rng(4).normal(size=(70, 200)).astype(kind)
    weight[3] = 0
    weight[4, 7] = 1e4
    rows = np.zeros(128, np.uint64)
    rows[:70] = _addresses(weight)
    out = np.zeros(2 * _native.panel_bytes(name, 200), np.uint8)
    assert _native.pack_rounded(thread_pool(1), rows, 200, dtype, name, out.ctypes.data) == -1
    wanted = panels(round_weights(weight.astype(np.float32), encoding(name)))
    np.testing.assert_array_equal(out, wanted[: len(out)])


@pytest.mark.parametrize("name", ["int8", "int8.g32", "int4.g64", "fp4.g32", "fp4.g16", "fp8", "fp8.g128"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_told(name: str, value: float) -> None:
    """The first row of them, whichever thread met it first; the last column is behind the last whole vector."""
    weight = np.random.default_rng(4).normal(size=(192, 203)).astype(np.float16)
    weight[70, 202], weight[150, 3] = value, value
    out = np.zeros(3 * _native.panel_bytes(name, 203), np.uint8)
    odd = _native.pack_rounded(thread_pool(2), _addresses(weight), 203, "float16", name, out.ctypes.data)
    assert odd == 70


def test_sizes_are_those_of_the_native_core() -> None:
    for name in ENCODINGS:
        for k in (1, 5, 64, 100, 896, 4864):
            assert packed_bytes(f"p64.{name}", 65, k) == 2 * _native.panel_bytes(name, k), (name, k)
    for k in (1, 15, 64, 65, 4864):
        assert natural_stride(TOKEN, k) == _native.token_row_bytes(k)


def test_the_deepest_sum_fits() -> None:
    """All codes at their ends: 65,536 products of 255 and 127 are just below 2^31."""
    k = 65536
    e = encoding("int8")
    codes = np.full((2, k), 255, np.uint8)
    codes[1] = 1
    encoded = Encoded(e, codes, np.ones((2, 1), np.float32), np.full((2, 1), 128, np.uint8))
    x = np.ones((1, k), np.float32)
    for level in levels_of("linear"):
        found = linear(tokens(x, "scalar"), encoded, panels(encoded), level)
        np.testing.assert_allclose(found, [[127.0 * k, -127.0 * k]], rtol=1e-6)
    with pytest.raises(ValueError, match="65,536"):
        panels(random_encoded(e, 1, k + 4, 0))


FLOATS = [name for name, item in ENCODINGS.items() if item.kind == "float"]


def random_fp8(name: str, n: int, k: int) -> Encoded:
    """Every finite code."""
    rng = np.random.default_rng(n + k)
    codes = rng.integers(0, 256, (n, k), np.uint8)
    codes[(codes & 127) == 127] = 0
    return Encoded(encoding(name), codes, rng.normal(size=(n, encoding(name).num_groups(k))).astype(np.float32))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("level", levels_of("linear", "fp8"))
def test_fp8_weights_are_multiplied_as_the_bfloat16_numbers_they_are(name: str, level: str) -> None:
    for (n, k), m in zip(SHAPES * 2, [*ROWS, *ROWS], strict=False):
        encoded = random_fp8(name, n, k)
        packed = panels(encoded)
        x = from_bfloat16_bits(bfloat16_bits(np.random.default_rng(m).normal(size=(m, k)).astype(np.float32)))
        stored = np.pad(bfloat16_bits(x), ((0, 0), (0, 16)))
        out = np.full((m, n), np.nan, np.float32)
        args = {"x": stored.ctypes.data, "x_stride": k + 16, "x_dtype": "bfloat16", "weight": packed.ctypes.data}
        args |= {"w_dtype": name, "out": out.ctypes.data, "out_stride": n, "n": n, "k": k}
        run("linear", level, name, args, m)
        wide, weight = x.astype(np.float64), encoded.decode().astype(np.float64)
        size = np.abs(wide) @ np.abs(weight).T
        assert np.all(np.abs(out - wide @ weight.T) <= (2 * np.sqrt(k) + 8) * 2.0**-23 * size + 1e-30), (n, k, m)
        alone = np.full((1, n), np.nan, np.float32)
        run("linear", level, name, args | {"x": stored[m // 2 :].ctypes.data, "out": alone.ctypes.data}, 1)
        np.testing.assert_array_equal(alone[0], out[m // 2])


@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_rounded_to_fp8_as_numpy_does_it(name: str) -> None:
    weight = np.random.default_rng(4).normal(size=(64, 200)).astype(np.float32)
    weight[3], weight[4, 7] = 0, 1e4
    weight[5] = np.ldexp(weight[5], -np.arange(200) % 30)
    out = np.zeros(_native.panel_bytes(name, 200), np.uint8)
    _native.pack_rounded(thread_pool(1), _addresses(weight), 200, "float32", name, out.ctypes.data)
    np.testing.assert_array_equal(out, panels(round_weights(weight, encoding(name)))[: len(out)])


@pytest.mark.parametrize("name", FLOATS)
def test_an_embedding_reads_fp8_panels(name: str) -> None:
    encoded = random_fp8(name, 130, 72)
    packed, out = panels(encoded), np.zeros((130, 72), np.float32)
    args = {"weight": packed.ctypes.data, "w_dtype": name, "packed": 1, "out": out.ctypes.data, "k": 72}
    for level in levels_of("embed"):
        program = _native.Program(thread_pool(1), 4)
        program.add("embed", level, name, args | {"rows": "T"})
        inputs = step(130)
        inputs.token_ids[:] = np.arange(130)
        program.run(*inputs.arrays, np.zeros((4, 65), np.int32), np.zeros((4, 65), np.float32))
        np.testing.assert_array_equal(out, encoded.decode())
