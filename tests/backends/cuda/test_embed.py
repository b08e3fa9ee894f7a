"""embed widens rows of a table, of numbers and of every encoding, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.embed import embed
from albireo.backends.cuda.kv import TORCH_DTYPES
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.reference.rounding import round_to
from albireo.encodings import ENCODINGS, encoding
from albireo.quantization.encoded import Encoded, e4m3_values
from backends.cpu.harness import assert_same_bits, normal
from backends.cuda.encoded import decoded, device_matrix, random_encoded, symmetric
from backends.cuda.tensors import ids, numbers, room

VOCAB = 7
IDS = [6, 0, 3, 6]


@pytest.mark.parametrize("cols", [1, 70, 1030])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numbers(dtype: str, cols: int) -> None:
    table = round_to(normal(VOCAB, cols), dtype)
    out = room(len(IDS), cols)
    embed(ids(IDS), DeviceMatrix(dtype, VOCAB, cols, torch.from_numpy(table).to(TORCH_DTYPES[dtype])), out)
    assert_same_bits(numbers(out), table[IDS], dtype)


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_encodings(name: str) -> None:
    table = device_matrix(symmetric(random_encoded(encoding(name), VOCAB, 1091, 5)))
    out = room(len(IDS), 1091)
    embed(ids(IDS), table, out)
    assert_same_bits(numbers(out), decoded(table)[IDS], name)


def test_every_e4m3_code() -> None:
    codes = Encoded(encoding("fp8"), np.arange(256, dtype=np.uint8)[None], np.ones((1, 1), np.float32))
    out = room(1, 256)
    embed(ids([0]), device_matrix(codes), out)
    assert np.array_equal(numbers(out)[0], e4m3_values(), equal_nan=True)


def test_rows_times_a_number() -> None:
    table, out = normal(VOCAB, 70), room(len(IDS), 70)
    embed(ids(IDS), DeviceMatrix("float32", VOCAB, 70, torch.from_numpy(table)), out, 55.5)
    assert_same_bits(numbers(out), table[IDS] * np.float32(55.5), "times")
