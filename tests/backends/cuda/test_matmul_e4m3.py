"""Linears of e4m3 on both sides: products of groups by their scales, rows of codes as outputs, and the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.chip import Absent, Chip
from albireo.backends.cuda.kernels import matmul_e4m3 as many
from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.matmul_e4m3 import matmul_e4m3
from albireo.backends.cuda.kernels.matmul_e4m3_smallm import matmul_e4m3_smallm
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, RowSquares
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.kernels.row_factors import row_factors
from albireo.backends.cuda.linear import linear, workspace_size
from albireo.backends.cuda.matmul_plan import (
    MEMORY,
    REGISTERS,
    SPLIT,
    Plan,
    e4m3_plan_for,
    num_part_elements,
)
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.sum_parts import num_parts
from albireo.backends.cuda.tokens import numbers_of
from albireo.backends.cuda.workspace import workspace_bytes
from albireo.dtypes import FP8_TOKEN
from albireo.encodings import encoding
from albireo.quantization.rounding import round_float_tokens
from backends.cuda.encoded import decoded, device_matrix, random_encoded
from backends.cuda.linears import EPS, activated, parts_of, random
from backends.cuda.tensors import e4m3_parts, room

KINDS = ["fp8", "fp8.g128"]


def rows_of(m: int, k: int, seed: int = 1) -> torch.Tensor:
    """Rows of e4m3 whose groups differ in size by up to 2^12."""
    x = room(m, k, FP8_TOKEN)
    sizes = torch.randint(-6, 7, (m, -(-k // 128)), generator=torch.Generator().manual_seed(seed)).float().exp2()
    elementwise("cast", random(m, k, seed=seed) * sizes.repeat_interleave(128, 1)[:, :k], None, x, k)
    return x


def matrix_of(name: str, n: int, k: int) -> DeviceMatrix:
    return device_matrix(random_encoded(encoding(name), n, k, seed=k))


def space_of(name: str, n: int, k: int) -> torch.Tensor:
    return torch.zeros(workspace_size(name, n, k, to_codes=True), dtype=torch.uint8)


def assert_codes(rows: torch.Tensor, numbers: torch.Tensor) -> None:
    found, scales = e4m3_parts(rows, numbers.shape[1])
    codes, wanted = round_float_tokens(numbers.numpy())
    assert np.array_equal(found, codes * wanted) and np.array_equal(scales, wanted)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("m", "k"), [(3, 1152), (66, 200), (140, 300)])
def test_it_is_the_product(name: str, m: int, k: int) -> None:
    """And a row has the same bits among few."""
    n = 140
    matrix, x, out = matrix_of(name, n, k), rows_of(m, k), torch.full((m, n), torch.nan)
    bias, residual = random(n, seed=2), random(m, n, seed=3)
    linear(x, matrix, out, bias, residual, workspace=space_of(name, n, k))
    few = torch.full((2, n), torch.nan)
    linear(x[m - 2 :], matrix, few, bias, residual[m - 2 :], workspace=space_of(name, n, k))
    assert torch.equal(few, out[m - 2 :])
    numbers, scaled = torch.from_numpy(decoded(matrix).astype(np.float64)), numbers_of(x, k).double()
    wanted = scaled @ numbers.T + bias + residual
    size = scaled.abs() @ numbers.abs().T + bias.abs() + residual.abs()
    assert ((out - wanted).abs() <= (k + 16) * EPS * size).all()


@pytest.mark.parametrize(
    ("name", "mode", "rows", "has_tma"),
    [
        ("fp8", REGISTERS, 256, True),
        ("fp8.g128", MEMORY, 256, True),
        ("fp8.g128", SPLIT, 128, True),
        ("fp8", REGISTERS, 128, False),
    ],
)
def test_every_plan_and_any_company_give_the_same_bits(
    name: str, mode: int, rows: int, has_tma: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sums, of what a norm is made of, in codes, and its squares."""
    n, k, tokens = 200, 1100, 70
    assert num_parts(n, k, name) == 2
    if not has_tma:
        monkeypatch.setattr(many, "chip_of", lambda device: Chip(4, 89))
    matrix, x, space = (
        matrix_of(name, n, k),
        rows_of(tokens, k),
        torch.zeros(workspace_bytes(1 << 18), dtype=torch.uint8),
    )
    residual, gain, bias = random(tokens, n, seed=4), random(n, seed=5), random(n, seed=6)

    def outs(count: int) -> tuple[torch.Tensor, RowParts]:
        return torch.full((count, n), torch.nan), RowParts(
            gain, room(count, n, FP8_TOKEN), torch.full((count, 4), torch.nan)
        )

    out, parts = outs(tokens)
    tile = Tile(rows, 64 if rows == 256 else 128, 128, 1, 8)
    matmul_e4m3(x, matrix, Finish(out, n, bias, residual, parts_out=parts), plan=Plan(tile, mode), workspace=space)
    assert not space[:4096].any(), "counters are zero again"
    assert_codes(parts.scaled, out * gain)
    for count in (1, 40):
        order = torch.randperm(tokens, generator=torch.Generator().manual_seed(count))[:count]
        few, few_parts = outs(count)
        matmul_e4m3_smallm(
            x[order], matrix, Finish(few, n, bias, residual[order], parts_out=few_parts), workspace=space
        )
        assert not space[:4096].any()
        assert torch.equal(few, out[order]) and torch.equal(few_parts.squares, parts.squares[order])
        assert torch.equal(few_parts.scaled.view(torch.uint8), parts.scaled[order].view(torch.uint8))


@pytest.mark.parametrize(("name", "outputs", "act"), [("fp8", 160, "silu_mul"), ("fp8.g128", 90, "gelu_tanh_mul")])
def test_gate_and_up_to_codes(name: str, outputs: int, act: str) -> None:
    """Behind a norm; of outputs that are no whole groups, zeros behind them; few, many and alone."""
    k, tokens = 256, 70
    rows = 2 * -(-outputs // 32) * 32
    matrix, x, space = matrix_of(name, rows, k), rows_of(tokens, k), space_of(name, rows, k)
    squares = RowSquares(2.0**40 * random(tokens, k // 64, seed=7).square(), torch.empty(tokens), 1e-3, k)
    row_factors(squares, squares.factors)
    numbers, codes = torch.full((tokens, rows), torch.nan), room(tokens, outputs, FP8_TOKEN)
    matmul_e4m3(x, matrix, Finish(numbers, rows), factors=squares.factors)
    linear(x, matrix, codes, act=act, n=outputs, workspace=space, squares=squares)
    gate, up = numbers.view(tokens, -1, 2, 32).transpose(1, 2).flatten(2).unbind(1)
    wanted = activated(gate, up, act)[:, :outputs]
    kept = torch.full((tokens, outputs), torch.nan)
    linear(x, matrix, kept, act=act, workspace=space, squares=squares)
    assert (kept - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert_codes(codes, kept)
    for first, count in ((0, 1), (20, 33)):
        few = room(count, outputs, FP8_TOKEN)
        part = RowSquares(squares.squares[first : first + count], squares.factors, 1e-3, k)
        linear(x[first : first + count], matrix, few, act=act, n=outputs, workspace=space, squares=part)
        assert torch.equal(few.view(torch.uint8), codes[first : first + count].view(torch.uint8))
        assert not space[:4096].any()


def test_a_norm_that_is_read_in_16_bits() -> None:
    """Where q, k and v have weights of another kind; few and many."""
    n, k, tokens = 100, 128, 66
    matrix, x, gain, residual = matrix_of("fp8", n, k), rows_of(tokens, k), random(n, seed=5), random(tokens, n, seed=4)
    for first in (0, 60):
        out, parts = torch.empty(tokens - first, n), parts_of(gain, tokens - first)
        linear(x[first:], matrix, out, residual=residual[first:], workspace=space_of("fp8", n, k), parts_out=parts)
        assert torch.equal(parts.scaled, (out * gain).bfloat16())


def test_a_row_that_is_no_number_keeps_to_its_group() -> None:
    """An infinity spoils the scale of its group in its token, and no other."""
    n, k = 256, 128
    matrix, x = matrix_of("fp8", n, k), rows_of(3, k)
    residual, gain = torch.zeros(3, n), torch.ones(n)
    residual[1, 5] = torch.inf
    parts = RowParts(gain, room(3, n, FP8_TOKEN), torch.empty(3, 4))
    out = torch.empty(3, n)
    linear(x, matrix, out, residual=residual, workspace=space_of("fp8", n, k), parts_out=parts)
    found, _ = e4m3_parts(parts.scaled, n)
    assert np.isnan(found[1, :128]).all() and np.isfinite(found[1, 128:]).all() and np.isfinite(found[[0, 2]]).all()


def test_a_plan_keeps_the_multiprocessors_busy_and_fits_its_workspace() -> None:
    shapes = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
    assert Absent.chip.has_tma
    for name, (rows, k) in shapes.items():
        for tokens in (65, 128, 256, 512, 2048, 8192):
            for dtype in KINDS:
                plan = e4m3_plan_for(tokens, rows, k, dtype, name == "gate_up", True, Chip(132))
                tile, parts = plan.tile, num_parts(rows, k, dtype)
                count = -(-rows // tile.rows) * -(-tokens // tile.tokens)
                kept = {REGISTERS: 0, MEMORY: min(132, count), SPLIT: parts * count}[plan.mode]
                assert kept * tile.rows * tile.tokens <= num_part_elements(rows, k, dtype)
                programs = parts * count if plan.mode == SPLIT else count
                assert programs >= 96, (name, tokens, dtype, "of 132 multiprocessors")
                assert name != "gate_up" or tile.rows == 256, "128 outputs share a scale"
