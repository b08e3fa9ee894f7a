"""read_streams and mix_streams: against their definitions in float64, and a row's bits alone; whole models of such
streams are in test_pooled.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.mix_streams import mix_streams
from albireo.backends.cuda.kernels.read_streams import Reading, Shifts, read_streams
from albireo.backends.reference import streams
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.rounding import round_to
from backends.cpu.harness import assert_same_bits, normal, rows_step
from backends.cuda.tensors import numbers, room, tensor

ROWS, EPS, PLUS, LEAST = 5, 1e-5, 1e-3, 1e-6


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("count", "width", "is_normed"), [(3, 40, True), (4, 130, False), (2, 64, True)])
def test_what_a_block_reads_and_how_it_is_written(count: int, width: int, is_normed: bool) -> None:
    x, y = 2 * normal(ROWS, count * width), 20 * normal(ROWS, (2 + count) * count, seed=1)
    scales = [normal(1, 1, seed=seed)[0] for seed in (2, 3, 4)]
    biases = [normal(1, n, seed=5 + n)[0] for n in (count, count, count * count)]
    gain = normal(1, width, seed=9)[0] if is_normed else None
    wide = x.astype(np.float64).reshape(ROWS, count, width)
    factor = 1 / np.sqrt((wide**2).mean(axis=(1, 2)) + EPS)[:, None]
    cuts = np.split(y.astype(np.float64), [count, 2 * count], axis=1)
    read, written, mixed = (
        part * factor * scale + bias for part, scale, bias in zip(cuts, scales, biases, strict=True)
    )
    (matrix,) = streams.balance(OpCall({"x": mixed.astype(np.float32)}, {"rounds": 7, "eps": LEAST}, rows_step(ROWS)))
    total = np.einsum("tj,tje->te", sigmoid(read) + PLUS, wide)
    if gain is not None:
        total = total / np.sqrt((total**2).mean(axis=1, keepdims=True) + 1e-6) * gain

    def run(rows: slice, dtype: str = "float32") -> list[np.ndarray]:
        outs = room(len(x[rows]), width, dtype), room(len(x[rows]), count), room(len(x[rows]), count * count)
        shifts = [Shifts(torch.from_numpy(s), torch.from_numpy(b)) for s, b in zip(scales, biases, strict=True)]
        weight = None if gain is None else torch.from_numpy(gain)
        reading = Reading(EPS, PLUS, 7, LEAST, 1e-6)
        given = tensor(x[rows], pad=3), tensor(y[rows], pad=5), (shifts[0], shifts[1], shifts[2]), weight
        read_streams(*given, *outs, reading)
        return [numbers(out) for out in outs]

    whole = slice(0, ROWS)
    found = run(whole)
    for got, wanted in zip(found, (total, sigmoid(written), matrix), strict=True):
        assert np.abs(got - wanted).max() <= 3e-5 * np.abs(wanted).max()
    assert_same_bits(run(whole, "bfloat16")[0], round_to(found[0], "bfloat16"), "bfloat16")
    for alone, got in zip(run(slice(2, 3)), found, strict=True):
        assert_same_bits(alone, got[2:3], "a row alone")


@pytest.mark.parametrize(("count", "width", "is_mixed"), [(3, 40, True), (4, 700, True), (2, 64, False)])
def test_streams_are_mixed_and_written(count: int, width: int, is_mixed: bool) -> None:
    x, y = normal(ROWS, count * width), normal(ROWS, width, seed=1)
    coefs, matrix = normal(ROWS, count, seed=2), normal(ROWS, count * count, seed=3)
    wide, by = x.astype(np.float64).reshape(ROWS, count, width), matrix.astype(np.float64).reshape(ROWS, count, count)
    wanted = np.einsum("tji,tie->tje", by, wide) if is_mixed else wide
    wanted = wanted + (coefs.astype(np.float64) * 2.5 + PLUS)[:, :, None] * y[:, None]

    def run(rows: slice) -> np.ndarray:
        out, of_all = room(len(x[rows]), count * width), tensor(matrix[rows]) if is_mixed else None
        mix_streams(tensor(x[rows], pad=3), tensor(y[rows]), tensor(coefs[rows], pad=2), of_all, out, 2.5, PLUS)
        return numbers(out)

    found = run(slice(0, ROWS))
    assert np.abs(found.reshape(wanted.shape) - wanted).max() <= 2e-6 * np.abs(wanted).max()
    assert_same_bits(run(slice(3, 4)), found[3:4], "a row alone")
