"""Round to nearest: how far from the numbers it may be, and edges."""

from dataclasses import replace
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from albireo.encodings import encoding
from albireo.errors import ConfigError, InvariantError
from albireo.quantization.encoded import (
    E2M1_VALUES,
    e2m1_codes,
    e4m3_codes,
    e4m3_values,
    e8m0_values,
    storable_scale,
)
from albireo.quantization.rounding import round_float_tokens, round_tokens, round_weights

NAMES = ("int8", "int8.g32", "int8.g64", "int4.g32", "int4.g64", "int4.g128", "fp8", "fp8.g128")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [64, 200, 5])
def test_numbers_are_within_half_a_step(name: str, k: int) -> None:
    weight = np.random.default_rng(k).normal(size=(7, k)).astype(np.float32)
    weight[2] = 0.0
    weight[3] *= 1e4
    weight[4, 0] = 1e4
    encoded = round_weights(weight, encoding(name))
    size = encoding(name).group or k
    scale = np.repeat(encoded.scale, size, axis=1)[:, :k]
    error = np.abs(encoded.decode() - weight)
    # of int4, zero is rounded to a step, too: the ends of the range may be half a step further off
    steps = 1.01 if name.startswith("int4") else 0.51
    bound = np.maximum(np.abs(weight) * 2.0**-4, scale * 2.0**-10) if "fp8" in name else steps * scale
    assert (error <= bound).all()
    assert (encoded.decode()[2] == 0).all()


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [*NAMES, "fp4.g32", "fp4.g16"])
def test_a_row_with_what_is_no_number_says_so(name: str, value: float) -> None:
    """Codes cannot: a model in few bits would answer in whole sentences. Rows beside it are as they would be."""
    weight = np.random.default_rng(3).normal(size=(3, 128)).astype(np.float32)
    alone = round_weights(weight[2:], encoding(name)).decode()
    weight[1, 70] = value
    found = round_weights(weight, encoding(name)).decode()
    assert not np.isfinite(found[1]).all()
    np.testing.assert_array_equal(found[2:], alone)


def test_e4m3_is_the_published_format() -> None:
    theirs = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(e4m3_values(), theirs)


def test_the_parts_of_fp4_are_the_published_formats() -> None:
    theirs = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(E2M1_VALUES, theirs)
    theirs = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(e8m0_values(), theirs)
    x = np.concatenate([np.arange(-64, 65) / np.float32(8), np.random.default_rng(0).normal(size=500) * 3])
    x = x.astype(np.float32)
    theirs = x.astype(ml_dtypes.float4_e2m1fn).view(np.uint8)
    np.testing.assert_array_equal(e2m1_codes(x), theirs)


@pytest.mark.parametrize("name", ["fp4.g32", "fp4.g16"])
def test_numbers_are_rounded_to_the_nearest_e2m1(name: str) -> None:
    weight = np.random.default_rng(3).normal(size=(9, 200)).astype(np.float32)
    weight[2], weight[3, :16], weight[4], weight[5, 7] = 0, 0, weight[4] * 1e-30, 1e4
    encoded = round_weights(weight, encoding(name))
    assert (encoded.decode()[2] == 0).all() and (encoded.decode()[3, :16] == 0).all()
    group = encoded.encoding.group
    assert group is not None and encoded.gamma is not None
    for row in range(9):
        for g in range(encoded.gamma.shape[1]):
            of_group, at = weight[row, g * group : (g + 1) * group], slice(g * group, (g + 1) * group)
            largest = np.abs(of_group).max()
            if not largest:
                continue
            if group == 32:  # the specification's: the exponent of the largest number less that of 4
                scale = np.float32(2.0 ** (np.floor(np.log2(np.float64(largest))) - 2))
                assert encoded.gamma[row, g] == int(np.log2(np.float64(scale))) + 127
            else:
                of_row = np.abs(weight[row]).max() / np.float32(6 * 448)
                of_gamma = (largest / of_row / np.float32(6)).astype(ml_dtypes.float8_e4m3fn)
                assert encoded.gamma[row, g] == of_gamma.view(np.uint8)
                scale = np.float32(of_gamma) * of_row
            if scale:
                codes = (of_group / scale).astype(ml_dtypes.float4_e2m1fn).view(np.uint8)
                np.testing.assert_array_equal(encoded.codes[row, at], codes)


def test_fp8_rounds_as_ml_dtypes_does() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 300)).astype(np.float32)
    encoded = round_weights(weight, encoding("fp8"))
    theirs = (weight / encoded.scale).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    np.testing.assert_array_equal(encoded.codes, theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e4m3_codes_are_the_nearest(dtype: type[np.floating]) -> None:
    """Every code, the middles between neighbours (ties go to the even code), numbers just beside them, and the ends."""
    values = e4m3_values()[:127].astype(np.float64)
    middles = (values[1:] + values[:-1]) / 2
    near = np.concatenate([values, middles])
    around = [np.nextafter(near.astype(dtype), dtype(side)) for side in (-1.0, 1e9)]
    x = np.concatenate([near.astype(dtype), *around, np.array([448.1, 464, 1e30, np.inf, 1e-30], dtype)])
    x = np.concatenate([x, -x])
    if dtype == np.float32:  # ml_dtypes rounds float64 to float32 first
        theirs = np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
        np.testing.assert_array_equal(e4m3_codes(x), theirs)
    distance = np.abs(np.minimum(np.abs(x), 1e3).astype(np.float64)[:, None] - values)
    nearest = distance == distance.min(axis=1, keepdims=True)
    even = np.where(nearest & (np.arange(127) % 2 == 0), 2, nearest).argmax(axis=1)
    np.testing.assert_array_equal(e4m3_codes(x) & 0x7F, even)
    np.testing.assert_array_equal(e4m3_codes(x) >> 7, np.signbit(x))
    assert e4m3_codes(x.reshape(2, -1)).shape == (2, len(x) // 2)


def test_every_float16_and_bfloat16_scale_is_storable() -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(storable_scale(halves), halves)


def test_scales_are_rounded_to_the_nearest_that_is_storable() -> None:
    """Ties go to even, as Python rounds; and a number that is not 0 stays one."""
    middles = np.arange(0x3F800080, 0x3F810080, 0x100, dtype=np.uint32)
    bits = np.concatenate([middles - 1, middles, middles + 1, np.arange(0x8000, 0x8400, dtype=np.uint32)])
    nearest = [round(Fraction(int(each), 256)) * 256 for each in bits]
    assert storable_scale(bits.view(np.float32)).view(np.uint32).tolist() == nearest


@pytest.mark.parametrize("name", ["int4.g32", "int8", "fp8.g128"])
@pytest.mark.parametrize("part", ["scale", "zero", "gamma", "offset"])
def test_parts_of_another_shape_are_refused(name: str, part: str) -> None:
    whole = round_weights(np.ones((3, 128), np.float32), encoding(name))
    had = getattr(whole, part)
    wrong = np.zeros(
        (3, 9) if had is None else (had.shape[0], had.shape[1] + 1), np.float32 if had is None else had.dtype
    )
    with pytest.raises(InvariantError, match=f"{part} is not"):
        replace(whole, **{part: wrong})


def test_tokens_use_the_whole_range_and_zero_rows_stay_zero() -> None:
    x = np.array([[1.0, -2.0, 0.5], [0, 0, 0], [1e-40, 0, 0], [3e38, -1e38, 0]], np.float32)
    q, scale = round_tokens(x)
    np.testing.assert_array_equal(q[0], [64, -127, 32])
    assert (q[1:3] == 0).all() and q[3, 0] == 127
    np.testing.assert_array_equal(scale[:, 0], np.float32([2, 0, 1e-40, 3e38]) / np.float32(127))


def test_float_tokens_have_a_scale_for_each_group() -> None:
    """The numbers of ml_dtypes for what is left when a group's largest is 448; a group that is none spoils no other."""
    x = np.random.default_rng(7).normal(size=(4, 300)).astype(np.float32) * np.repeat([1, 1e-6, 1e8], 128)[:300]
    x = x.astype(np.float32)
    x[1, 128:256], x[2, 5], x[3, :128] = 0, np.inf, 1e-38
    codes, scale = round_float_tokens(x)
    assert codes.shape == scale.shape == x.shape
    for token, first in ((0, 0), (0, 128), (0, 256), (1, 0), (2, 128)):
        group = x[token, first : first + 128]
        largest = np.abs(group).max()
        assert (scale[token, first : first + 128] == largest / np.float32(448)).all()
        exact = (group * (np.float32(448) / largest)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        np.testing.assert_array_equal(codes[token, first : first + 128], exact)
    assert not codes[1, 128:256].any() and not scale[1, 128:256].any()
    assert np.isnan(scale[2, :128]).all() and not codes[2, :128].any()
    assert not scale[3, :128].any() and not codes[3, :128].any(), "a scale below the normal numbers is none"


def test_unknown_names_are_refused() -> None:
    for name in ("int3", "int4", "int8.g7", "fp8.g64", "int4p.g32.affine", "int4.g16", "fp4.g64"):
        with pytest.raises(ConfigError, match="is not known"):
            encoding(name)


@pytest.mark.parametrize("name", ["int8", "int8.g16", "int4.g32", "int4p.g64", "fp4.g32", "fp4.g16", "fp8", "fp8.g128"])
def test_columns_are_those_of_the_numbers(name: str) -> None:
    matrix = round_weights(np.random.default_rng(4).normal(size=(5, 300)).astype(np.float32), encoding(name))
    for start, stop in ((0, 128), (128, 256), (128, 300)):
        part = matrix.columns(start, stop)
        assert part.shape == (5, stop - start)
        np.testing.assert_array_equal(part.decode(), matrix.decode()[:, start:stop])
    if matrix.encoding.group is not None:
        with pytest.raises(InvariantError, match=r"inputs 8 to 128 are no whole groups"):
            matrix.columns(8, 128)
