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
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.layouts import packed_bytes
from albireo.dtypes import TOKEN, natural_stride
from albireo.encodings import ENCODINGS, Encoding, encoding
from albireo.quantization.encoded import Encoded, storable_scale
from albireo.quantization.rounding import round_tokens, round_weights

INTEGERS = [name for name, item in ENCODINGS.items() if item.kind != "float"]
SHAPES = [(1, 64), (3, 100), (64, 128), (70, 36), (130, 200), (5, 5), (16, 1000)]
ROWS = [1, 2, 7, 24, 25, 29, 48, 50, 101]
F32 = NDArray[np.float32]


def random_encoded(e: Encoding, n: int, k: int, seed: int) -> Encoded:
    """Codes over the whole range, scales of both signs; a row of zeros."""
    rng = np.random.default_rng(seed)
    groups = e.num_groups(k)
    codes = rng.integers(0, 1 << e.bits, (n, k), np.uint8)
    scale = rng.normal(size=(n, groups)).astype(np.float32)
    zero = gamma = offset = None
    if e.kind == "integer":
        zero = rng.integers(0, 1 << e.bits, (n, groups), np.uint8)
        if e.group is None:
            codes, zero = np.maximum(codes, 1), np.full((n, 1), 128, np.uint8)
        else:
            scale = storable_scale(scale)
    elif e.kind == "affine":
        offset = rng.normal(size=(n, groups)).astype(np.float32)
    else:
        scale = scale[:, :1].copy()
        zero, gamma = rng.integers(0, 16, (n, groups), np.uint8), rng.integers(1, 9, (n, groups), np.uint8)
    scale[n // 2] = 0
    return Encoded(e, codes, scale, zero, gamma, offset)


def panels(encoded: Encoded) -> NDArray[np.uint8]:
    n, k = encoded.shape
    padded = -(-n // 64) * 64
    name = encoded.encoding.name
    out = np.full(padded // 64 * _native.panel_bytes(name, k) + 4096, 0xCD, np.uint8)
    rows = {}
    for part in ("codes", "scale", "zero", "gamma", "offset"):
        array = getattr(encoded, part)
        rows[part] = np.zeros(padded, np.uint64)
        if array is not None:
            rows[part][:n] = _addresses(array)
    _native.pack_encoded(thread_pool(1), *rows.values(), k, name, out.ctypes.data)
    return out


def tokens(x: F32, level: str, dtype: str = "float32") -> NDArray[np.uint8]:
    """Rows of 8-bit codes, made by the native core."""
    m, k = x.shape
    out = np.full((m, natural_stride(TOKEN, k)), 0xCD, np.uint8)
    source = np.pad(x, ((0, 0), (0, 16)))
    args: dict[str, Any] = {"x": source.ctypes.data, "x_stride": k + 16, "out": out.ctypes.data, "k": k, "act": 0}
    run("elementwise", level, TOKEN, args | {"out_dtype": TOKEN, "out_stride": out.shape[1], "x_dtype": dtype}, m)
    return out


def run(family: str, level: str, dtype: str, args: dict[str, Any], m: int, threads: int = 1) -> None:
    program = _native.Program(thread_pool(threads), 4)
    program.add(family, level, dtype, args | {"rows": "T"})
    inputs = step(m)
    program.run(*inputs.arrays, np.zeros((4, 65), np.int32), np.zeros((4, 65), np.float32))


def step(m: int) -> StepInputs:
    zeros = np.zeros(m, np.int32)
    none = np.zeros(0, np.int32)
    return StepInputs(
        token_ids=zeros,
        positions=np.arange(m, dtype=np.int32),
        slots=np.arange(m, dtype=np.int32),
        query_start=np.array([0, m], np.int32),
        context_len=np.array([m], np.int32),
        block_table=np.zeros((1, 1), np.int32),
        logit_rows=none,
        top_rows=none,
        top_counts=none,
    )


def linear(x: NDArray[np.uint8], encoded: Encoded, packed: NDArray[np.uint8], level: str, threads: int = 1) -> F32:
    n, k = encoded.shape
    out = np.full((len(x), n), np.nan, np.float32)
    args = {"x": x.ctypes.data, "x_stride": x.shape[1], "x_dtype": TOKEN, "weight": packed.ctypes.data}
    args |= {"w_dtype": encoded.encoding.name, "out": out.ctypes.data, "out_stride": n, "n": n, "k": k}
    run("linear", level, encoded.encoding.name, args, len(x), threads)
    return out


def levels_of(family: str) -> list[str]:
    known = {level for name, kind, level in _native.kernels() if name == family and kind in ("any", "integers")}
    return [level for level in isa_levels() if level in known]


def reference(codes: F32, scale: F32, encoded: Encoded) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the product is, and the sum of magnitudes its rounding is measured by."""
    weight = encoded.decode().astype(np.float64)
    if encoded.offset is None:
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
    """Portable code has no fused multiply-add, so of groups it is left out."""
    encoded = random_encoded(encoding(name), 150, 328, seed=1)
    packed = panels(encoded)
    x = np.random.default_rng(2).normal(size=(103, 328)).astype(np.float32)
    rows = tokens(x, "scalar")
    is_whole = encoding(name).group is None or encoding(name).kind == "progressive"
    levels = [level for level in levels_of("linear") if is_whole or level != "scalar"]
    wanted = linear(rows, encoded, packed, levels[0])
    for level in levels:
        np.testing.assert_array_equal(linear(rows, encoded, packed, level, threads=2), wanted)
        for start, stop in ((0, 1), (5, 9), (40, 68), (3, 103)):
            part = linear(np.ascontiguousarray(rows[start:stop]), encoded, packed, level)
            np.testing.assert_array_equal(part, wanted[start:stop])


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


@pytest.mark.parametrize("name", ["int8", "int8.g32", "int8.g128", "int4.g32", "int4.g64", "int4.g128"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers_are_rounded_as_numpy_does_it(name: str, dtype: str) -> None:
    kind: Any = np.dtype(dtype)
    weight = np.random.default_rng(4).normal(size=(70, 200)).astype(kind)
    weight[3] = 0
    weight[4, 7] = 1e4
    rows = np.zeros(128, np.uint64)
    rows[:70] = _addresses(weight)
    out = np.zeros(2 * _native.panel_bytes(name, 200), np.uint8)
    _native.pack_rounded(thread_pool(1), rows, 200, dtype, name, out.ctypes.data)
    wanted = panels(round_weights(weight.astype(np.float32), encoding(name)))
    np.testing.assert_array_equal(out, wanted[: len(out)])


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
