"""Linears of plain numbers, for few tokens and for many: right, and the same bits in any company."""

from __future__ import annotations

import pytest
import torch

from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels.matmul import matmul
from albireo.backends.cuda.kernels.matmul_smallm import matmul_smallm
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.linear import linear, linear_of_leaves, workspace_size
from albireo.backends.cuda.matmul_plan import MEMORY, REGISTERS, SPLIT, Plan, num_part_elements, plan_for
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.sum_parts import num_parts
from albireo.backends.cuda.turns import GatherSpace
from albireo.backends.cuda.workspace import workspace_bytes
from albireo.errors import InvariantError
from backends.cuda.linears import activated, bound, interleaved, parts_of, random

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def matrix(weight: torch.Tensor) -> DeviceMatrix:
    return DeviceMatrix(name(weight.dtype), *weight.shape, weight)


def workspace(weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros(workspace_size(name(weight.dtype), *weight.shape), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "n", "k"), [(1, 70, 40), (19, 64, 136), (33, 5, 7), (67, 130, 72)])
def test_a_linear_is_the_product(dtype: torch.dtype, tokens: int, n: int, k: int) -> None:
    x, weight = random(tokens, k + 3, seed=1, dtype=dtype)[:, :k], random(n, k, seed=2, dtype=dtype)
    bias, residual = random(n, seed=3), random(tokens, n + 2, seed=4)
    product = x.double() @ weight.double().T
    out = torch.full((tokens, n + 2), torch.nan)
    linear(x, matrix(weight), out[:, :n])
    assert ((out[:, :n] - product).abs() <= bound(x, weight)).all()
    assert out[:, n:].isnan().all()
    wanted = product + bias + residual[:, :n]
    linear(x, matrix(weight), residual[:, :n], bias, residual[:, :n])
    assert ((residual[:, :n] - wanted).abs() <= bound(x, weight) + 2.0**-22 * (wanted.abs() + 8)).all()


@pytest.mark.parametrize("act", ["silu_mul", "gelu_tanh_mul"])
@pytest.mark.parametrize(("tokens", "n"), [(3, 33), (70, 80)])
def test_gate_and_up_become_one(act: str, tokens: int, n: int) -> None:
    x = random(tokens, 64, seed=1, dtype=torch.bfloat16)
    gate, up = (random(n, 64, seed=seed, dtype=torch.bfloat16) / 4 for seed in (2, 3))
    bias = random(2, n, seed=4)
    out = torch.full((tokens, n), torch.nan, dtype=torch.bfloat16)
    linear(x, matrix(interleaved(gate, up)), out, interleaved(bias[0], bias[1]), act=act)
    parts = [x.double() @ w.double().T + b for w, b in ((gate, bias[0]), (up, bias[1]))]
    wanted = activated(parts[0], parts[1], act)
    # slopes of both activations are below 1.13; the last rounding is to bfloat16
    error = 1.13 * bound(x, gate) * parts[1].abs() + bound(x, up) * parts[0].abs()
    assert ((out.double() - wanted).abs() <= error + 2.0**-8 * 1.01 * wanted.abs() + 1e-6).all()


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("tokens", [3, 70])
def test_an_activation_without_a_gate(act: str, tokens: int) -> None:
    x, weight = random(tokens, 64, seed=1, dtype=torch.bfloat16), random(80, 64, seed=2, dtype=torch.bfloat16) / 4
    bias = random(1, 80, seed=4)[0]
    out = torch.full((tokens, 80), torch.nan)
    linear(x, matrix(weight), out, bias, act=act)
    sums = x.double() @ weight.double().T + bias
    f = torch.nn.functional
    wanted = f.relu(sums) if act == "relu" else f.gelu(sums, approximate="tanh" if act == "gelu_tanh" else "none")
    assert ((out - wanted).abs() <= 1.13 * bound(x, weight) + 2.0**-20 * (1 + sums.abs())).all()


def test_parts_are_added_by_the_last_and_the_counters_are_left_at_zero() -> None:
    x, weight = random(17, 1100, seed=1, dtype=torch.bfloat16), random(65, 1100, seed=2, dtype=torch.bfloat16)
    assert num_parts(65, 1100, "bfloat16") == 2
    space = workspace(weight)
    outs = [torch.full((17, 65), torch.nan) for _ in range(2)]
    for out in outs:
        linear(x, matrix(weight), out, workspace=space)
        assert not space[:4096].any()
    assert torch.equal(outs[0], outs[1])
    assert ((outs[0] - x.double() @ weight.double().T).abs() <= bound(x, weight)).all()
    with pytest.raises(InvariantError, match="workspace"):
        linear(x, matrix(weight), outs[0], workspace=space[:8192])


@pytest.mark.parametrize("k", [80, 1056])
def test_a_row_has_the_same_bits_in_any_company(k: int) -> None:
    """Alone, among few, among many, in any order; one part and two. Tiles of one k: the interpreter's own sums are
    those of a block."""
    x, weight = random(90, k, seed=1, dtype=torch.bfloat16), random(70, k, seed=2, dtype=torch.bfloat16)
    space = workspace(weight)
    whole = torch.empty(90, 70)
    matmul(x, matrix(weight), Finish(whole, 70), plan=Plan(Tile(128, 128, 64, 1)))
    for tokens in (1, 16, 30, 64):
        order = torch.randperm(90, generator=torch.Generator().manual_seed(tokens))[:tokens]
        out = torch.empty(tokens, 70)
        width = 16 if tokens <= 16 else 32 if tokens <= 32 else 64
        matmul_smallm(x[order], matrix(weight), Finish(out, 70), workspace=space, tile=Tile(64, width, 64, 1))
        assert torch.equal(out, whole[order]), tokens


def test_number_of_parts_is_a_constant_of_the_shape() -> None:
    assert num_parts(4096, 4096, "bfloat16") == 4
    assert num_parts(28672, 4096, "bfloat16") == 1
    assert num_parts(4096, 14336, "float32") == 1
    assert num_parts(24, 28672, "float32") == 32  # numbers of streams, which nobody waits for in one chain
    assert num_parts(24, 4096, "float32") == 1
    assert workspace_size("bfloat16", 28672, 4096) == 0


@pytest.mark.usefixtures("ordered_dot")
def test_long_rows_of_float32_have_the_same_bits_in_any_company() -> None:
    """Few rows of weights, cut into parts: alone, among few, in parts of their own and behind one another."""
    x, weight = random(260, 8192, seed=1), random(3, 8192, seed=2)
    space, whole = workspace(weight), torch.empty(260, 3)
    assert num_parts(3, 8192, "float32") == 16
    linear(x, matrix(weight), whole, n=3, workspace=space)
    torch.testing.assert_close(whole, x @ weight.T, rtol=1e-4, atol=2e-3)
    for tokens in (1, 5, 70):
        out = torch.empty(tokens, 3)
        linear(x[:tokens], matrix(weight), out, n=3, workspace=space)
        assert torch.equal(out, whole[:tokens]), tokens


@pytest.mark.usefixtures("ordered_dot")
@pytest.mark.parametrize(("dtype", "rows"), [(torch.bfloat16, 5), (torch.float32, 70)])
def test_a_tree_of_leaves_is_made_of_its_branches(dtype: torch.dtype, rows: int) -> None:
    """Whoever has half of the inputs has the bits of half of the tree; rows take turns where space is short."""
    x, weight = random(rows, 64, seed=1, dtype=dtype), random(30, 64, seed=2, dtype=dtype)
    bias, residual = random(1, 30, seed=3)[0], random(rows, 30, seed=4)
    whole, space = torch.empty(rows, 30), GatherSpace(torch.zeros(8 * 30 * 3))
    linear_of_leaves(x, matrix(weight), whole, 8, space, bias=bias, residual=residual)
    halves = [torch.empty(rows, 30) for _ in range(2)]
    for i, half in enumerate(halves):
        linear_of_leaves(x[:, 32 * i : 32 * i + 32], matrix(weight[:, 32 * i : 32 * i + 32]), half, 4, space)
    assert torch.equal(whole, residual + (halves[0] + halves[1] + bias))
    torch.testing.assert_close(whole, x.float() @ weight.float().T + bias + residual, rtol=1e-5, atol=1e-4)
    with pytest.raises(InvariantError, match="64 inputs are no 7 equal leaves"):
        linear_of_leaves(x, matrix(weight), whole, 7, space)


@pytest.mark.usefixtures("ordered_dot")
def test_leaves_in_one_launch_have_the_bits_of_their_own() -> None:
    """Each a sum of two parts."""
    x, weight = (random(rows, 2048, seed=rows, dtype=torch.bfloat16) for rows in (3, 20))
    assert num_parts(20, 1024, "bfloat16") == 2
    space, out = torch.zeros(2 * workspace_size("bfloat16", 20, 1024), dtype=torch.uint8), torch.empty(6, 20)
    matmul_smallm(x, matrix(weight), Finish(out, 20), workspace=space, leaves=2)
    for i, found in enumerate(out.view(2, 3, 20)):
        part, alone = slice(1024 * i, 1024 * i + 1024), torch.empty(3, 20)
        matmul_smallm(x[:, part], matrix(weight[:, part]), Finish(alone, 20), workspace=space)
        assert torch.equal(found, alone)


@pytest.mark.parametrize(
    ("mode", "width", "use_tma"),
    [(REGISTERS, 256, True), (MEMORY, 128, True), (SPLIT, 256, False)],
)
@pytest.mark.usefixtures("ordered_dot")
def test_every_plan_gives_the_bits_of_few_tokens(mode: int, width: int, use_tma: bool) -> None:
    """Two parts, the last of them short; more tiles than programs; tails of rows and of tokens."""
    k, n, tokens = 1096, 200, 270
    assert num_parts(n, k, "bfloat16") == 2
    x, weight = random(tokens, k, seed=1, dtype=torch.bfloat16), random(n, k, seed=2, dtype=torch.bfloat16)
    bias, residual, gain = random(n, seed=3), random(tokens, n, seed=4), random(n, seed=5)
    elements = 2 * 256 * 512
    space = torch.zeros(workspace_bytes(elements), dtype=torch.uint8)
    out, parts = torch.full((tokens, n), torch.nan), parts_of(gain, tokens)
    plan = Plan(Tile(128, width, 64, 1, 8), mode)
    matmul(
        x, matrix(weight), Finish(out, n, bias, residual, parts_out=parts), plan=plan, workspace=space, use_tma=use_tma
    )
    assert not space[:4096].any(), "counters are zero again"
    few, few_parts = torch.full((64, n), torch.nan), parts_of(gain, 64)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(1))[:64]
    matmul_smallm(
        x[order],
        matrix(weight),
        Finish(few, n, bias, residual[order], parts_out=few_parts),
        workspace=space,
        tile=Tile(64, 64, 64, 1),
    )
    assert torch.equal(few, out[order])
    assert torch.equal(few_parts.scaled, parts.scaled[order])
    assert torch.equal(few_parts.squares, parts.squares[order])


def test_a_plan_keeps_the_multiprocessors_busy_and_fits_its_workspace() -> None:
    shapes = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
    for name, (rows, k) in shapes.items():
        for tokens in (65, 128, 256, 512, 2048, 8192):
            for dtype in ("bfloat16", "fp8", "int4.g128"):
                plan = plan_for(tokens, rows, k, dtype, True, Chip(132))
                tile, parts = plan.tile, num_parts(rows, k, dtype)
                count = -(-rows // tile.rows) * -(-tokens // tile.tokens)
                assert plan.mode == REGISTERS or parts > 1
                kept = {REGISTERS: 0, MEMORY: min(132, count), SPLIT: parts * count}[plan.mode]
                assert kept * tile.rows * tile.tokens <= num_part_elements(rows, k, dtype)
                programs = parts * count if plan.mode == SPLIT else count
                assert programs >= 96, (name, tokens, dtype, "of 132 multiprocessors")
    # eight parts of a hundred tiles would be six rounds of programs, and 105 MB
    assert num_parts(12800, 4096, "bfloat16") == 8 and num_part_elements(12800, 4096, "bfloat16") == 0
    assert plan_for(128, 12800, 4096, "bfloat16", True, Chip(132)).mode == REGISTERS
