"""Grids: searched clipping is never worse than plain rounding, and everything chosen can be stored."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.encodings import encoding
from albireo.quantization.encoded import Encoded, storable_scale
from albireo.quantization.methods.grid import SCALE_BITS, significant
from albireo.quantization.methods.progressive import as_plain, as_progressive, search_progressive
from albireo.quantization.methods.search import search_grid
from albireo.quantization.rounding import round_weights

NAMES = ("int8", "int8.g32", "int4.g32", "int4.g64", "int4.g128", "fp8")


def heavy(n: int = 40, k: int = 192, seed: int = 0) -> np.ndarray:
    """Weights with tails, a row of zeros, an outlier of 1e4, rows of extremes."""
    weight = np.random.default_rng(seed).standard_t(4, (n, k)).astype(np.float32) * np.float32(0.02)
    weight[3] = 0
    weight[5, 7] = 1e4
    weight[6] = np.where(np.arange(k) % 2, 0.5, -0.5)
    return weight


def correlated(k: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Inputs whose channels differ in size and go together, and their second moments."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * k, k)) @ (np.eye(k) + rng.normal(size=(k, k)) / k**0.5) * np.exp(rng.normal(size=k))
    x = x.astype(np.float32)
    return x, x.T @ x / np.float32(len(x))


def has_bits(scale: np.ndarray, bits: int) -> bool:
    return bool((scale.view(np.uint32) & ((1 << (24 - bits)) - 1) == 0).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_search_is_never_worse_than_plain_rounding_group_by_group(name: str, dtype: str) -> None:
    weight, coding = heavy(), encoding(name)
    plain = search_grid(weight, coding, dtype=dtype, shrinks=(1.0,)).encode(weight)
    found = search_grid(weight, coding, dtype=dtype).encode(weight)
    size = coding.group or weight.shape[1]

    def costs(encoded: Encoded) -> np.ndarray:
        pad = -weight.shape[1] % size
        squares = np.pad((encoded.decode() - weight).astype(np.float64) ** 2, ((0, 0), (0, pad)))
        return squares.reshape(len(weight), -1, size).sum(axis=2)

    assert (costs(found) <= costs(plain) * (1 + 1e-5) + 1e-12).all()
    assert (costs(found) < costs(plain) * 0.999).mean() > 0.1
    assert has_bits(found.scale, SCALE_BITS[dtype])
    assert (found.decode()[3] == 0).all()
    assert np.array_equal(storable_scale(found.scale), found.scale)


def test_with_moments_the_error_of_outputs_is_what_gets_smaller() -> None:
    weight = heavy()[10:]
    x, moments = correlated(weight.shape[1])
    blind = search_grid(weight, encoding("int4.g64")).encode(weight).decode()
    seeing = search_grid(weight, encoding("int4.g64"), moments).encode(weight).decode()
    assert np.linalg.norm(x @ (seeing - weight).T) < 0.97 * np.linalg.norm(x @ (blind - weight).T)
    assert np.linalg.norm(seeing - weight) > np.linalg.norm(blind - weight)


@pytest.mark.parametrize("bits", [4, 8, 11, 16])
def test_significant_bits_are_the_nearest(bits: int) -> None:
    x = np.abs(np.random.default_rng(bits).normal(size=2000)).astype(np.float32)
    seen = significant(x, bits)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    wanted = np.ldexp(np.rint(mantissa * 2.0**bits) / 2.0**bits, exponent)
    assert np.array_equal(seen.astype(np.float64), wanted)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_progressive_int4_never_leaves_int8_and_its_plain_form_can_be_stored(group: int, dtype: str) -> None:
    weight = heavy()
    encoded = search_progressive(weight, encoding(f"int4p.g{group}"), dtype=dtype).encode(weight)
    assert encoded.gamma is not None and encoded.zero is not None
    assert encoded.gamma.min() >= 1 and encoded.gamma.max() <= 15 and encoded.codes.max() <= 15
    groups = np.arange(weight.shape[1]) // group
    reach = (encoded.codes.astype(int) - encoded.zero[:, groups]) * encoded.gamma[:, groups]
    assert np.abs(reach).max() <= 127
    assert (encoded.decode()[3] == 0).all()
    plain = as_plain(encoded)
    assert has_bits(plain.scale, SCALE_BITS[dtype])
    assert np.array_equal(plain.decode(), encoded.decode())


def test_a_reader_finds_progressive_int4_again() -> None:
    weight = heavy()
    written = as_plain(search_progressive(weight, encoding("int4p.g64"), dtype="bfloat16").encode(weight))
    found = as_progressive(written)
    assert found is not None and str(found.encoding) == "int4p.g64"
    assert np.array_equal(found.decode(), written.decode())


def test_int4_with_steps_of_its_own_is_not_taken_for_progressive() -> None:
    weight = heavy()
    assert as_progressive(round_weights(weight, encoding("int4.g64"))) is None
    assert as_progressive(round_weights(weight, encoding("int8.g64"))) is None


def test_progressive_costs_little_where_groups_are_alike() -> None:
    weight = np.random.default_rng(2).normal(size=(64, 512)).astype(np.float32)
    lost = [
        np.linalg.norm(e.decode() - weight)
        for e in (
            search_progressive(weight, encoding("int4p.g64")).encode(weight),
            search_grid(weight, encoding("int4.g64")).encode(weight),
            round_weights(weight, encoding("int4p.g64")),
        )
    ]
    assert lost[0] < 1.03 * lost[1]
    assert lost[2] < 1.10 * lost[1]
