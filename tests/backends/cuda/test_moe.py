"""Experts: grouped products against float64, and a pair's bits against those of a linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda import expert_plan
from albireo.backends.cuda.chip import Chip, chip_of
from albireo.backends.cuda.expert_linear import expert_linear, workspace_size
from albireo.backends.cuda.expert_list import ExpertList, expert_list, most_items, tile_width
from albireo.backends.cuda.expert_plan import ExpertPlan
from albireo.backends.cuda.kernels import moe_grouped_matmul as moe_grouped_matmul_file
from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.gate_rows import gate_rows
from albireo.backends.cuda.kernels.matmul_e4m3_smallm import matmul_e4m3_smallm
from albireo.backends.cuda.kernels.matmul_groups import matmul_groups
from albireo.backends.cuda.kernels.matmul_int8 import matmul_int8
from albireo.backends.cuda.kernels.matmul_smallm import matmul_smallm
from albireo.backends.cuda.kernels.moe_combine import moe_combine
from albireo.backends.cuda.kernels.moe_grouped_matmul import moe_grouped_matmul
from albireo.backends.cuda.kernels.moe_groups import moe_groups
from albireo.backends.cuda.kernels.moe_route import Rules, moe_route
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.row_squares import RowSquares
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.sum_parts import num_parts, part_length
from albireo.backends.cuda.tokens import e4m3_rows, numbers_of, token_rows
from albireo.dtypes import FP8_TOKEN, TOKEN, natural_stride
from albireo.encodings import encoding
from albireo.errors import InvariantError
from backends.cuda.encoded import decoded, device_matrix, random_encoded, symmetric
from backends.cuda.linears import activated, bound, interleaved, parts_of, random
from backends.cuda.routes import CPU, real, routed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("tokens", "num_experts", "top_k", "n", "k"), [(3, 5, 2, 70, 40), (75, 3, 2, 64, 136)])
def test_a_pair_is_its_row_times_its_experts_matrix(
    dtype: torch.dtype, tokens: int, num_experts: int, top_k: int, n: int, k: int
) -> None:
    """x a row of each token, then one of each pair; rows of padding tokens are left alone."""
    padded = -(-n // 64) * 64
    weight = torch.zeros(num_experts, padded, k, dtype=dtype)
    weight[:, :n] = random(num_experts, n, k, seed=2, dtype=dtype)
    matrix = DeviceMatrix(str(dtype).removeprefix("torch."), num_experts * padded, k, weight.view(-1, k))
    num_real = tokens - 1
    ids, _, lists = routed(random(tokens, num_experts, seed=3), top_k, num_real=num_real, dtype=matrix.dtype)
    for rows in (tokens, tokens * top_k):
        x = random(rows, k + 3, seed=1, dtype=dtype)[:, :k]
        out = torch.full((tokens * top_k, n + 2), torch.nan)
        expert_linear(x, matrix, out[:, :n], lists, workspace=space_of(lists, matrix))
        each = x.double() if rows != tokens else x.double().repeat_interleave(top_k, 0)
        chosen = weight[ids.long().flatten(), :n].double()
        wanted = torch.einsum("pk,pnk->pn", each, chosen)
        error = (k + 8) * 2.0**-24 * torch.einsum("pk,pnk->pn", each.abs(), chosen.abs())
        done = num_real * top_k
        assert ((out[:done, :n] - wanted[:done]).abs() <= error[:done]).all()
        assert out[:, n:].isnan().all() and out[done:].isnan().all()


def space_of(lists: ExpertList, matrix: DeviceMatrix) -> torch.Tensor:
    size = workspace_size(
        lists.num_experts, lists.top_k, matrix.dtype, matrix.rows // lists.num_experts, matrix.cols, CPU
    )
    return torch.zeros(size, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("act", "has_bias", "has_norm"),
    [("silu_mul", False, False), ("clamped_swiglu", True, False), ("clamped_swiglu", False, True)],
)
def test_gate_and_up_of_an_expert_become_one(act: str, has_bias: bool, has_norm: bool) -> None:
    """With biases, as gpt-oss has them; of rows of a norm, as MiniMax M3 has them."""
    num_experts, n, k, tokens, top_k = 3, 40, 64, 5, 2
    gate, up = (random(num_experts, n, k, seed=seed, dtype=torch.bfloat16) / 4 for seed in (2, 3))
    both = torch.cat([interleaved(gate[e], up[e]) for e in range(num_experts)])
    x = random(tokens, k, seed=1, dtype=torch.bfloat16)
    ids, _, lists = routed(random(tokens, num_experts, seed=3), top_k)
    out = torch.full((tokens * top_k, n), torch.nan, dtype=torch.bfloat16)
    biases, bias = [torch.zeros(num_experts, n, dtype=torch.float64)] * 2, None
    if has_bias:
        vectors = [random(num_experts, n, 1, seed=seed) * 3 for seed in (5, 6)]
        bias = torch.cat([interleaved(*(vector[e] for vector in vectors)) for e in range(num_experts)]).flatten()
        biases = [vector[:, :, 0].double() for vector in vectors]
    norm, factors = None, torch.ones(tokens, dtype=torch.float64)
    if has_norm:
        sums = random(tokens, 2, seed=7).square() * 32
        norm, factors = RowSquares(sums, torch.full((tokens,), torch.nan), 1e-5, k), _factors(sums, k)
    matrix = DeviceMatrix("bfloat16", len(both), k, both)
    expert_linear(x, matrix, out, lists, act=act, bias=bias, squares=norm)
    for pair, expert in enumerate(ids.flatten().tolist()):
        row = x[pair // top_k, None]
        by = factors[pair // top_k]
        sums = [row.double() @ part[expert].double().T * by for part in (gate, up)]
        parts = [each + of[expert] for each, of in zip(sums, biases, strict=True)]
        wanted = activated(parts[0], parts[1], act)
        error = 1.13 * by * bound(row, gate[expert]) * (parts[1].abs() + 1)
        error = (
            error + by * bound(row, up[expert]) * parts[0].abs() + 2.0**-20 * (parts[0].abs() * (parts[1].abs() + 1))
        )
        assert ((out[pair].double() - wanted).abs() <= error + 2.0**-8 * 1.01 * wanted.abs() + 1e-6).all()


@pytest.mark.parametrize(
    ("name", "k"),
    [
        ("bfloat16", 80),
        ("bfloat16", 1100),
        ("fp8", 320),
        ("fp8.e4m3", 320),
        ("fp8.g128.e4m3", 320),
        ("int8", 150),
        ("int4.g32", 520),
        ("fp4.g32", 520),
    ],
)
@pytest.mark.usefixtures("ordered_dot")
def test_a_pair_has_the_bits_of_a_linear_in_any_company(name: str, k: int) -> None:
    """With its expert's matrix alone: for one token, few and many, parts apart and in one program, programs in turn.
    Tiles of one k: the interpreter's own sums are those of a block."""
    num_experts, top_k, n, tokens = 3, 2, 128, 72
    kind = name.removesuffix(".e4m3")
    matrices = [_matrix(kind, n, k, seed) for seed in range(num_experts)]
    whole, x = _joined(matrices), _rows(name, random(tokens, k, seed=7))
    step = {"bfloat16": 64, "int4.g32": 256, "fp4.g32": 256}.get(kind, 128)
    logits = random(tokens, num_experts, seed=3)
    ids = logits.topk(top_k, 1).indices
    wanted = torch.full((tokens, top_k, n), torch.nan)
    elements = num_parts(n, k, kind) * 2 * 3 * 128 * 128 if kind != "int8" else 0
    space = torch.zeros(4096 + 4 * elements, dtype=torch.uint8)
    for expert, matrix in enumerate(matrices):
        for at in range(0, tokens, 64):
            rows, out = slice(at, at + 64), torch.empty(len(x[at : at + 64]), n)
            if kind == "int8":
                assert matrix.scale is not None
                matmul_int8(x[rows], matrix.codes, matrix.scale, Finish(out, n))
            else:
                product = matmul_e4m3_smallm if name != kind else matmul_smallm
                product(x[rows], matrix, Finish(out, n), workspace=space, tile=Tile(64, 64, step, 1))
            wanted[rows] = torch.where((ids[rows] == expert)[:, :, None], out[:, None], wanted[rows])
    plans = [(1, 8, True), (9, 16, False), (40, 32, True), (72, 128, False)]
    for count, width, is_split in plans:
        order = torch.randperm(tokens, generator=torch.Generator().manual_seed(count))[:count]
        found_ids, _, lists = routed(logits[order], top_k)
        lists = replace(lists, widest=width)
        moe_route(logits[order], found_ids, torch.empty(count, top_k), lists, real(count), Rules(True))
        assert torch.equal(found_ids.long(), ids[order])
        tile = Tile(128 if width == 128 else 64, width, step, 1)
        plan = ExpertPlan(tile, is_split and num_parts(n, k, kind) > 1 and kind != "int8", width == 128)
        out = torch.full((count * top_k, n), torch.nan)
        codes, *scales = _operands(name, x[order], k)
        moe_grouped_matmul(codes, whole, out, n, lists, 0, *scales, space, plan, None if count < 10 else 3)
        assert torch.equal(out.view(count, top_k, n), wanted[order]), (count, width)
        assert not space[:4096].any(), "counters are zero again"


@pytest.mark.parametrize(
    ("name", "k"),
    [
        ("int8.g32", 150),
        ("int4.g32.affine", 520),
        ("int4p.g64", 300),
        ("int4.g128", 300),
        ("fp4.g16", 260),
        ("q3_k", 300),
        ("q4_k", 512),
    ],
)
@pytest.mark.usefixtures("ordered_dot")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in silu, where it gives the limit
def test_a_pair_of_codes_in_groups_has_the_bits_of_a_linear(name: str, k: int) -> None:
    """As above, of a step of one token, of few and of many; gate and up of few, with biases."""
    num_experts, top_k, n, tokens = 3, 2, 128, 72
    matrices = [device_matrix(random_encoded(encoding(name), n, k, seed)) for seed in range(num_experts)]
    whole, logits = _joined(matrices), random(tokens, num_experts, seed=3)
    x, bias = _rows("int8", random(tokens, k, seed=7)), random(num_experts, n, seed=8)
    for act, columns in ((0, n), (1, n // 2)):
        of_each = torch.empty(num_experts, tokens, columns)
        for expert, matrix in enumerate(matrices):
            end = Finish(of_each[expert], columns, bias[expert] if act else None, None, act)
            matmul_groups(x, matrix, end)
        for count, width in (
            ((1, 8), (9, 16)) if act else ((1, 8), (40, 32), (tokens, expert_plan.widest(name, chip_of(CPU))))
        ):
            order = torch.randperm(tokens, generator=torch.Generator().manual_seed(count))[:count]
            found_ids, _, lists = routed(logits[order], top_k)
            lists = replace(lists, widest=width)
            moe_route(logits[order], found_ids, torch.empty(count, top_k), lists, real(count), Rules(True))
            out, told = torch.full((count * top_k, columns), torch.nan), bias.flatten() if act else None
            moe_groups(x[order], whole, out, columns, lists, act, told, programs=None if count < 10 else 3)
            wanted = of_each[found_ids.long(), order[:, None]]
            assert torch.equal(out.view(count, top_k, columns), wanted), (act, count, width)


def _matrix(kind: str, n: int, k: int, seed: int) -> DeviceMatrix:
    if kind == "bfloat16":
        return DeviceMatrix(kind, n, k, random(n, k, seed=seed, dtype=torch.bfloat16))
    return device_matrix(symmetric(random_encoded(encoding(kind), n, k, seed)))


def _joined(matrices: list[DeviceMatrix]) -> DeviceMatrix:
    """One behind the other."""

    def columns(arrays: list[torch.Tensor | None]) -> torch.Tensor | None:
        some = [array for array in arrays if array is not None]
        return torch.cat(some, 1).contiguous() if some else None

    first = matrices[0]
    return DeviceMatrix(
        first.dtype,
        sum(matrix.rows for matrix in matrices),
        first.cols,
        torch.cat([matrix.codes for matrix in matrices]),
        columns([matrix.scale for matrix in matrices]),
        columns([matrix.zero for matrix in matrices]),
        offset=columns([matrix.offset for matrix in matrices]),
        gamma=columns([matrix.gamma for matrix in matrices]),
    )


def _rows(name: str, x: torch.Tensor) -> torch.Tensor:
    """As linears read them: name is a weight's type, with .e4m3 where x is of that, too."""
    return _token_rows(x) if name == "int8" else _fp8_rows(x) if name.endswith(".e4m3") else x.to(torch.bfloat16)


def _operands(name: str, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """As grouped products read them: numbers, or codes, and scales of groups or of rows."""
    if name == "int8":
        parts = token_rows(rows, k)
        return parts.codes, None, parts.floats[:, parts.first]
    return (*e4m3_rows(rows, k), None) if name.endswith(".e4m3") else (rows, None, None)


def _token_rows(x: torch.Tensor) -> torch.Tensor:
    rows = torch.zeros((len(x), natural_stride(TOKEN, x.shape[1])), dtype=torch.uint8)
    elementwise("cast", x, None, rows, x.shape[1])
    return rows


def _fp8_rows(x: torch.Tensor) -> torch.Tensor:
    rows = torch.zeros((len(x), natural_stride(FP8_TOKEN, x.shape[1])), dtype=torch.uint8).view(torch.float8_e4m3fn)
    elementwise("cast", x, None, rows, x.shape[1])
    return rows


@pytest.mark.parametrize(
    "name", ["fp8", "fp8.g128", "fp8.e4m3", "fp8.g128.e4m3", "int8", "int4.g32", "int4.g128", "fp4.g16"]
)
@pytest.mark.parametrize("tokens", [4, 70])
def test_experts_in_few_bits(name: str, tokens: int) -> None:
    """As expert_linear picks the kernel, against float64."""
    num_experts, top_k, n, k = 3, 2, 64, 300
    kind = name.removesuffix(".e4m3")
    matrices = [_matrix(kind, n, k, seed) for seed in range(num_experts)]
    whole, x = _joined(matrices), random(tokens, k, seed=7)
    rows = _rows(name, x)
    values = (numbers_of(rows, k) if rows.element_size() == 1 else rows).double()
    ids, _, lists = routed(random(tokens, num_experts, seed=3), top_k, dtype=kind)
    out = torch.full((tokens * top_k, n), torch.nan)
    expert_linear(rows, whole, out, lists, workspace=space_of(lists, whole))
    weight = torch.from_numpy(np.stack([decoded(matrix) for matrix in matrices])).double()
    chosen, each = weight[ids.long().flatten()], values.repeat_interleave(top_k, 0)
    wanted = torch.einsum("pk,pnk->pn", each, chosen)
    error = torch.einsum("pk,pnk->pn", each.abs(), chosen.abs()) * (k + 8) * 2.0**-24
    if name == "int4.g32" or name == "int4.g128":
        error *= 16  # codes and zero points are up to 15 where their difference is small
    assert ((out - wanted).abs() <= error).all()


def test_lists_of_wider_tiles_than_are_multiplied_are_refused() -> None:
    wide, x = expert_list(2, 1, 200, CPU), random(200, 128, seed=1)
    with pytest.raises(InvariantError, match="tiles of 128 pairs"):
        expert_linear(x.bfloat16(), _matrix("int4.g32", 128, 128, 1), torch.empty(200, 64), wide)
    with pytest.raises(InvariantError, match="tiles of 128 pairs is read by tiles of 64"):
        expert_linear(_token_rows(x), _matrix("fp4.g16", 128, 128, 1), torch.empty(200, 64), wide)


@pytest.mark.parametrize("has_residual", [True, False])
def test_combine_adds_in_order(has_residual: bool) -> None:
    tokens, top_k, n = 5, 3, 530
    x, weights, residual = (
        random(tokens * top_k, n + 2, seed=1)[:, :n],
        random(tokens, top_k, seed=2),
        random(tokens, n, seed=3),
    )
    x[top_k * (tokens - 1) :] = torch.nan  # what nobody wrote
    rows, by = x.numpy().reshape(tokens, top_k, n), weights.numpy()[:, :, None]
    wanted = by[:, 0] * rows[:, 0]
    for j in range(1, top_k):
        wanted = wanted + by[:, j] * rows[:, j]
    wanted[-1] = 0.0
    if has_residual:
        wanted = residual.numpy() + wanted
    out = residual if has_residual else torch.full((tokens, n), torch.nan)
    moe_combine(x, weights, out, residual if has_residual else None, real(tokens - 1))
    assert np.array_equal(out.numpy(), wanted)


def test_a_plan_reads_weights_once_and_has_room_for_its_parts() -> None:
    """Qwen3-30B-A3B and Mixtral-8x7B: an expert's pairs of a decoding step are one tile, nearly always."""
    for num_experts, top_k, shapes in ((128, 8, ((1536, 2048), (2048, 768))), (8, 2, ((28672, 4096), (4096, 14336)))):
        for rows, k in shapes:
            for dtype in ("bfloat16", "fp8", "int4.g128", "int8", "float32"):
                chip = Chip(132)
                room = expert_plan.num_part_elements(num_experts, top_k, rows, k, dtype, chip)
                for tokens in (1, 2, 8, 64, 256, 2048):
                    width = min(expert_plan.widest(dtype, chip), tile_width(tokens, num_experts, top_k))
                    most = most_items(tokens, num_experts, top_k, width)
                    plan = expert_plan.plan_for(tokens, width, most, rows, k, dtype, False, chip)
                    assert plan.tile.tokens == width or (width <= 16 and plan.tile.tokens == 16)
                    tiles = most * -(-rows // plan.tile.rows)
                    if plan.is_split:
                        size = num_parts(rows, k, dtype) * tiles * plan.tile.rows * plan.tile.tokens
                        assert size <= room <= 32 << 20
                    assert tiles >= 96, (rows, dtype, tokens)


def test_plans_of_few_experts_have_room_for_their_parts_in_steps_of_any_size() -> None:
    """Mixtures of two and four 7B models: prompts have few tiles, too, and large ones."""
    for num_experts, top_k, rows, k in (
        (4, 2, 4096, 14336),
        (2, 1, 4096, 14336),
        (4, 2, 2048, 5632),
        (2, 1, 512, 2048),
    ):
        for dtype, is_e4m3 in (("bfloat16", False), ("fp8", False), ("fp8", True), ("int4.g128", False)):
            chip = Chip(132)
            room = expert_plan.num_part_elements(num_experts, top_k, rows, k, dtype, chip)
            for tokens in (*range(1, 300), 512, 1920, 3970, 8192):
                width = min(expert_plan.widest(dtype, chip), tile_width(tokens, num_experts, top_k))
                most = most_items(tokens, num_experts, top_k, width)
                plan = expert_plan.plan_for(tokens, width, most, rows, k, dtype, is_e4m3, chip)
                if plan.is_split:
                    tiles = most * -(-rows // plan.tile.rows)
                    assert num_parts(rows, k, dtype) * tiles * plan.tile.rows * plan.tile.tokens <= room, (rows, tokens)


def test_no_program_has_a_part_of_a_sum_that_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes by TMA has no branch for it: compiled, it would go on behind the last input."""
    rows, k, tokens = 1024, 2304, 32
    told: dict[str, Any] = {}
    assert (num_parts(rows, k, "int4.g32"), part_length(k, 4)) == (4, k // 3)

    class Told:
        def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
            return lambda **arguments: told.update(arguments, programs=grid[0])

    monkeypatch.setattr(moe_grouped_matmul_file, "moe_grouped_matmul_kernel", Told())
    matrix = _joined([_matrix("int4.g32", rows, k, seed) for seed in range(4)])
    lists = expert_list(4, 2, tokens, CPU, expert_plan.widest("int4.g32", chip_of(CPU)))
    space = torch.zeros(4096 + 4 * 4 * 4 * rows * tokens * 2, dtype=torch.uint8)
    x, out = random(tokens, k, seed=9, dtype=torch.bfloat16), torch.empty(tokens * 2, rows)
    moe_grouped_matmul(x, matrix, out, rows, lists, workspace=space)
    assert told["SPLIT"] and told["TMA"], "the case that is meant"
    assert (told["PARTS"] - 1) * told["part_k"] < k <= told["PARTS"] * told["part_k"]
    assert told["programs"] % told["PARTS"] == 0


def test_combine_gives_what_a_norm_of_its_rows_is_made_of() -> None:
    x, weights, residual, gain = (
        random(6, 576, seed=1),
        random(3, 2, seed=2),
        random(3, 576, seed=3),
        random(576, seed=4),
    )
    plain, out, parts = torch.empty(3, 576), torch.empty(3, 576), parts_of(gain, 3)
    moe_combine(x, weights, plain, residual, real(2))
    moe_combine(x, weights, out, residual, real(2), parts)
    assert torch.equal(out, plain) and torch.equal(out[2], residual[2])
    assert torch.equal(parts.scaled, (out * gain).bfloat16())
    rows = _fp8_rows(torch.zeros(3, 576))
    moe_combine(x, weights, out, residual, real(2), replace(parts, scaled=rows))
    assert torch.equal(rows.view(torch.uint8), _fp8_rows(out * gain).view(torch.uint8))
    squares = out.double().view(3, 9, 64).square().sum(2)
    assert ((parts.squares - squares).abs() <= 8 * 2.0**-24 * squares).all()


def _factors(sums: torch.Tensor, k: int) -> torch.Tensor:
    """[T] what a norm multiplies rows of k numbers by, of sums of their squares."""
    return 1 / (sums.double().sum(1) / k + 1e-5).sqrt()


def test_rows_of_a_norm_are_divided_by_token() -> None:
    """Few: a tile does it; many: a launch before says by what. The same bits."""
    top_k, n, k, tokens = 2, 64, 64, 70
    weight, x = random(3 * n, k, seed=2, dtype=torch.bfloat16), random(tokens, k, seed=1, dtype=torch.bfloat16)
    matrix, logits = DeviceMatrix("bfloat16", 3 * n, k, weight), random(tokens, 3, seed=3)
    sums = random(tokens, 2, seed=5).square() * 32

    def out_of(count: int, has_norm: bool) -> torch.Tensor:
        _, _, lists = routed(logits[:count], top_k)
        squares = RowSquares(sums[:count], torch.full((count,), torch.nan), 1e-5, k) if has_norm else None
        out = torch.full((count * top_k, n), torch.nan)
        expert_linear(x[:count], matrix, out, lists, squares=squares)
        return out

    many = out_of(tokens, True)
    assert torch.equal(many[: 3 * top_k], out_of(3, True))
    wanted = out_of(tokens, False).double() * _factors(sums, k).repeat_interleave(top_k)[:, None]
    assert ((many - wanted).abs() <= 2.0**-21 * wanted.abs()).all()


@pytest.mark.parametrize("has_residual", [True, False])
def test_rows_times_the_sigmoid_of_their_gates(has_residual: bool) -> None:
    x, gate, residual = random(4, 530, seed=1), torch.tensor([[0.3], [-80.0], [80.0], [-1.5]]), random(4, 530, seed=2)
    wanted = torch.sigmoid(gate.double()) * x + (residual if has_residual else 0)
    out = residual.clone() if has_residual else torch.full((4, 530), torch.nan)
    gate_rows(x, gate, out, out if has_residual else None)
    assert ((out - wanted).abs() <= 2.0**-21 * (x.abs() + residual.abs())).all()
    assert torch.equal(out[2], x[2] + residual[2] if has_residual else x[2])


@pytest.mark.parametrize("is_softplus", [False, True])
def test_parts_of_rows_times_gates_of_their_own(is_softplus: bool) -> None:
    x, gate = random(3, 5 * 112, seed=1), 4 * random(3, 5, seed=3)
    by = torch.nn.functional.softplus(gate.double()) if is_softplus else torch.sigmoid(gate.double())
    wanted = by.repeat_interleave(112, 1) * x
    out = torch.full_like(x, torch.nan)
    gate_rows(x, gate, out, None, is_softplus)
    assert ((out - wanted).abs() <= 2.0**-19 * wanted.abs() + 2.0**-24 * x.abs()).all()
