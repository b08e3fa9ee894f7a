"""embed widens rows of a table, of numbers and of every encoding, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.embed import embed
from albireo.backends.reference.rounding import round_to
from albireo.encodings import ENCODINGS, Encoding, encoding
from albireo.quantization.encoded import Encoded, e4m3_values
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import ULP, ids, matrix, numbers, room

VOCAB = 7
IDS = [6, 0, 3, 6]


def random_encoded(how: Encoding, n: int, k: int) -> Encoded:
    """Any codes, scales and zeros that the encoding has, whatever they stand for."""
    rng = np.random.default_rng(5)
    groups = (n, how.num_groups(k))
    codes = rng.integers(0, 1 << how.bits, (n, k)).astype(np.uint8)
    if how.kind == "float":
        codes &= 0xBF  # no NaN
    scale = rng.uniform(1e-3, 2.0, (n, 1) if how.kind == "progressive" else groups).astype(np.float32)
    zero = rng.integers(0, 16, groups).astype(np.uint8)
    if how.bits == 8:
        zero[:] = 128
    return Encoded(
        how,
        codes,
        scale,
        zero=zero if how.kind in ("integer", "progressive") else None,
        gamma=rng.integers(1, 16, groups).astype(np.uint8) if how.kind == "progressive" else None,
        offset=normal(*groups) if how.kind == "affine" else None,
    )


@pytest.mark.parametrize("cols", [1, 70, 1030])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numbers(dtype: str, cols: int) -> None:
    table = round_to(normal(VOCAB, cols), dtype)
    out = room(len(IDS), cols)
    embed(ids(IDS), matrix(table, dtype), out)
    assert_same_bits(numbers(out), table[IDS], dtype)


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings(name: str) -> None:
    weight = random_encoded(encoding(name), VOCAB, 1090)
    out = room(len(IDS), 1090)
    embed(ids(IDS), matrix(weight, name), out)
    got, wanted = numbers(out), weight.decode()[IDS]
    if name.startswith("int8") and weight.offset is not None:
        # the offset of signed codes is another sum: one more rounding, of numbers as large as 255 scales
        largest = 256 * np.max(weight.scale) + np.max(np.abs(weight.offset))
        assert np.max(np.abs(got - wanted)) <= 4 * ULP * largest
    else:
        assert_same_bits(got, wanted, name)


def test_every_e4m3_code() -> None:
    table = matrix(Encoded(encoding("fp8"), np.arange(256, dtype=np.uint8)[None], np.ones((1, 1), np.float32)), "fp8")
    out = room(1, 256)
    embed(ids([0]), table, out)
    wanted: F32 = e4m3_values()
    assert np.array_equal(numbers(out)[0], wanted, equal_nan=True)
    assert torch.equal(out[0, :127], table.codes[0, :127].float())
