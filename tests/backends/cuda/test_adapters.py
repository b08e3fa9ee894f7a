"""Adapters on a GPU: x @ A^T of each row's own, what a linear adds of it, and whose bits these are."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from albireo.backends.cuda.adapter_shapes import AdapterShape
from albireo.backends.cuda.adapters import LinearAdapters
from albireo.backends.cuda.kernels import adapter as adapter_file
from albireo.backends.cuda.kernels.adapter import PART_K, adapter, num_part_elements
from albireo.backends.cuda.kernels.adapter_add import LowRows
from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, RowSquares
from albireo.backends.cuda.linear import linear, linear_of_leaves, workspace_size
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.tokens import FLOAT_LINE, numbers_of
from albireo.backends.cuda.turns import GatherSpace
from albireo.backends.cuda.workspace import workspace_bytes
from albireo.encodings import encoding
from backends.cuda.encoded import device_matrix, random_encoded, symmetric
from backends.cuda.linears import EPS, interleaved, parts_of, random

CPU = torch.device("cpu")
MAX_RANK = 20
NUM_SLOTS = 3
#: Of 60 rows: alone, one after another, and many of one. In the interpreter sums of bfloat16 are rounded a step of k at
#: a time, and steps of few rows are not those of many; on a GPU neither has a say in bits.
SLOTS = torch.tensor([1, -1, 0, 2, 2, -1] + [0] * 30 + [-1] * 8 + [1, 2] * 8, dtype=torch.int32)
MANY = SLOTS.repeat(2)
pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in silu, where it gives the limit
Pair = tuple[np.ndarray, np.ndarray] | None


def pairs_of(shape: AdapterShape, seed: int, ranks: tuple[int, ...]) -> list[Pair]:
    """A and B of each module; none of rank 0."""
    rng, found = np.random.default_rng(seed), []
    for rank, (first, end) in zip(ranks, shape.columns, strict=True):
        a, b = rng.standard_normal((rank, shape.k), np.float32), rng.standard_normal((end - first, rank), np.float32)
        found.append((a, b) if rank else None)
    return found


def slots_of(shape: AdapterShape, *held: list[Pair]) -> LinearAdapters:
    made = LinearAdapters.of(shape, NUM_SLOTS, CPU)
    for slot, pairs in enumerate(held):
        made.put(slot, pairs)
    return made


def rows_of(kind: str, tokens: int, k: int) -> torch.Tensor:
    x = random(tokens, k, seed=k)
    if kind == "int8":
        out = torch.zeros(tokens, -(-k // 64) * 64 + 4 * (2 + k // 16 + 2), dtype=torch.uint8)
        out = torch.zeros(tokens, -(-out.shape[1] // 64) * 64, dtype=torch.uint8)
    elif kind == "e4m3":
        lines = -(-k // FLOAT_LINE)
        out = torch.zeros(tokens, lines * FLOAT_LINE + -(-4 * lines // 64) * 64, dtype=torch.uint8)
        out = out.view(torch.float8_e4m3fn)
    else:
        return x.to(getattr(torch, kind))
    elementwise("cast", x, None, out, k, 1.0, None)
    return out


def low_of(x: torch.Tensor, made: LinearAdapters, slots: torch.Tensor, has_space: bool = True) -> torch.Tensor:
    out, k = torch.full((len(x), made.shape.ranks), torch.nan), made.shape.k
    leaves = made.shape.leaves
    size = workspace_bytes(num_part_elements(len(x), made.shape.ranks, k, leaves))
    adapter(x, made.a, slots, out, k, torch.zeros(size, dtype=torch.uint8) if has_space else None, leaves)
    return out


@pytest.mark.parametrize(
    ("kind", "k"),
    [
        *product(["float32", "bfloat16", "float16", "int8", "e4m3"], [40]),
        *product(["bfloat16", "int8", "e4m3"], [PART_K + 72]),  # each way in which rows lie
        *(pytest.param(kind, PART_K + 72, marks=pytest.mark.thorough) for kind in ("float32", "float16")),
    ],
)
def test_each_row_meets_its_own_adapter(kind: str, k: int) -> None:
    """And in any company, by one program a tile or one a part, it has the same bits."""
    shape = AdapterShape(((0, 5), (5, 9)), MAX_RANK, k, 9, False, kind == "e4m3")
    held = [pairs_of(shape, 1, (20, 3)), pairs_of(shape, 2, (0, 17)), pairs_of(shape, 3, (4, 0))]
    made, x = slots_of(shape, *held), rows_of(kind, len(SLOTS), k)
    got = low_of(x, made, SLOTS)
    numbers = (numbers_of(x, k) if kind in ("int8", "e4m3") else x).double()
    for row, slot in enumerate(SLOTS.tolist()):
        wanted, size = torch.zeros(shape.ranks).double(), torch.zeros(shape.ranks).double()
        for place, pair in enumerate(held[slot] if slot >= 0 else []):
            if pair is not None:
                a, at = torch.from_numpy(pair[0]).double(), place * MAX_RANK
                wanted[at : at + len(a)] = a @ numbers[row]
                size[at : at + len(a)] = a.abs() @ numbers[row].abs()
        assert ((got[row] - wanted).abs() <= (k + 8) * EPS * size).all()
    assert torch.equal(low_of(x, made, SLOTS, has_space=False), got)
    for rows in (slice(3, 4), slice(1, 30), slice(40, 60)):
        assert torch.equal(low_of(x[rows], made, SLOTS[rows]), got[rows])
    order = torch.from_numpy(np.random.default_rng(5).permutation(len(SLOTS)))
    mixed = x.view(torch.uint8)[order].view(x.dtype) if kind == "e4m3" else x[order]
    assert torch.equal(low_of(mixed, made, SLOTS[order]), got[order])


def test_each_leaf_meets_its_own_columns() -> None:
    """Of more inputs than a part has: by one program a tile or one a part a leaf has the bits of a row that is one."""
    k, leaves = PART_K + 72, 2
    shape = AdapterShape(((0, 5), (5, 9)), MAX_RANK, leaves * k, 9, False, False, leaves=leaves)
    held, x = [pairs_of(shape, 1, (20, 3)), pairs_of(shape, 2, (0, 17))], rows_of("bfloat16", 20, leaves * k)
    made, slots = slots_of(shape, *held), SLOTS[:20].remainder(3) - 1
    got = low_of(x, made, slots)
    assert torch.equal(low_of(x, made, slots, has_space=False), got)
    assert torch.equal(low_of(x[3:5], made, slots[3:5]), got[3:5])
    for leaf in range(leaves):
        columns = (leaf * k, leaf * k + k)
        own = slots_of(replace(shape, k=k, leaves=1, inputs=columns), *held)
        assert torch.equal(low_of(x[:, slice(*columns)], own, slots), got[:, leaf * 2 * MAX_RANK :][:, : 2 * MAX_RANK])
    assert got[slots >= 0].any(dim=1).all() and not got[slots < 0].any()


def test_a_slot_holds_what_was_put_there_last() -> None:
    shape = AdapterShape(((0, 64), (64, 96)), MAX_RANK, 40, 96, False, False)
    first, second = pairs_of(shape, 1, (20, 3)), pairs_of(shape, 2, (0, 17))
    made, fresh = slots_of(shape, first), slots_of(shape, second)
    made.put(0, second)
    for ours, wanted in ((made.a, fresh.a), (made.b, fresh.b), (made.ranks, fresh.ranks)):
        assert torch.equal(ours, wanted)


def added_of(x: torch.Tensor, made: LinearAdapters, slots: torch.Tensor, turn: int) -> LowRows:
    """turn: rows of sums that there is room for."""
    space = torch.full((turn * made.shape.rows,), torch.nan)
    return LowRows(low_of(x, made, slots), slots, made.b, made.ranks, made.module_of, space)


def merged(held: list[list[Pair]], slot: int, shape: AdapterShape) -> torch.Tensor:
    """[outputs of all modules, k] what an adapter adds to the weight."""
    more = torch.zeros(shape.columns[-1][1], shape.k).double()
    for pair, (first, end) in zip(held[slot], shape.columns, strict=True):
        if pair is not None:
            more[first:end] = torch.from_numpy(pair[1]).double() @ torch.from_numpy(pair[0]).double()
    return more


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_added_before_bias_and_residual(dtype: str) -> None:
    """As merged weights say; rows without an adapter have the bits of the linear that knows none."""
    n, k, columns = 200, 96, ((0, 100), (100, 150), (150, 200))
    shape = AdapterShape(columns, MAX_RANK, k, n, False, False)
    held = [pairs_of(shape, 1, (20, 3, 5)), pairs_of(shape, 2, (0, 17, 0)), pairs_of(shape, 3, (4, 0, 1))]
    made, kind = slots_of(shape, *held), getattr(torch, dtype)
    x, weight = random(120, k, seed=1, dtype=kind), random(n, k, seed=2, dtype=kind)
    bias, residual, matrix = random(n, seed=3), random(120, n, seed=4), DeviceMatrix(dtype, n, k, weight)
    space = torch.zeros(workspace_size(dtype, n, k), dtype=torch.uint8)

    def run(rows: slice, added: LowRows | None) -> torch.Tensor:
        out = residual[rows].clone()
        linear(x[rows], matrix, out, bias=bias, residual=out, workspace=space, added=added)
        return out

    of_many, plain_many = run(slice(0, 120), added_of(x, made, MANY, 120)), run(slice(0, 120), None)
    assert torch.equal(of_many[MANY < 0], plain_many[MANY < 0])
    every, x = slice(0, 60), x[:60]
    got, plain = run(every, added_of(x, made, SLOTS, 60)), run(every, None)
    assert torch.equal(got[SLOTS < 0], plain[SLOTS < 0])
    for row, slot in enumerate(SLOTS.tolist()):
        if slot < 0:
            continue
        whole = weight.double() + merged(held, slot, shape)
        wanted = whole @ x[row].double() + bias.double() + residual[row].double()
        assert ((got[row] - wanted).abs() <= 1e-4 * (whole.abs() @ x[row].double().abs() + 1)).all()
    # of modules that its adapter has nothing for a row has the bits of the linear alone
    assert torch.equal(got[0, :100], plain[0, :100]) and torch.equal(got[0, 150:], plain[0, 150:])
    for rows in (slice(0, 1), slice(2, 40)):
        assert torch.equal(run(rows, added_of(x[rows], made, SLOTS[rows], 60)), got[rows])
    assert torch.equal(run(every, added_of(x, made, SLOTS, 9)), got), "in turns of nine rows"
    nobody = torch.full_like(SLOTS, -1)
    assert torch.equal(run(every, added_of(x, made, nobody, 60)), plain)


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4.g32", "int4p.g32", "fp8", "e4m3", "fp8.g128", "fp4.g32"])
def test_gate_and_up_have_their_own_and_the_weight_may_have_few_bits(name: str) -> None:
    """Gate and up rows in turn, an activation behind; e4m3 is rows of it on both sides, and what is written."""
    half, k = 160 if name == "e4m3" else 96, 256  # of e4m3 two lines are written, of which one is not full
    shape = AdapterShape(((0, half), (half, 2 * half)), MAX_RANK, k, 2 * half, True, name == "e4m3")
    held = [pairs_of(shape, 1, (20, 3)), pairs_of(shape, 2, (0, 17)), pairs_of(shape, 3, (4, 0))]
    held = [[None if p is None else (p[0] / 30, p[1] / 8) for p in each] for each in held]
    made, encoded = slots_of(shape, *held), None
    if name == "bfloat16":
        gate, up = (random(half, k, seed=seed, dtype=torch.bfloat16) / 16 for seed in (2, 3))
        matrix = DeviceMatrix(name, 2 * half, k, interleaved(gate, up))
    else:
        encoded = symmetric(random_encoded(encoding("fp8" if name == "e4m3" else name), 2 * half, k, 2))
        matrix = device_matrix(encoded)
    kind = {"int8": "int8", "int4p.g32": "int8", "e4m3": "e4m3"}.get(name, "bfloat16")
    x = rows_of(kind, 120, k)
    space = torch.zeros(workspace_size(matrix.dtype, 2 * half, k, to_codes=True), dtype=torch.uint8)

    def run(rows: slice, added: LowRows | None) -> torch.Tensor:
        count = rows.stop - rows.start
        if name == "e4m3":
            out = torch.zeros(count, 256 + 64, dtype=torch.uint8).view(torch.float8_e4m3fn)
        else:
            out = torch.zeros(count, half, dtype=torch.bfloat16)
        linear(x[rows], matrix, out, act="silu_mul", n=half, workspace=space, added=added)
        return out.view(torch.uint8)

    of_many, plain_many = run(slice(0, 120), added_of(x, made, MANY, 120)), run(slice(0, 120), None)
    assert torch.equal(of_many[MANY < 0], plain_many[MANY < 0])
    every, x = slice(0, 60), x[:60]
    got, plain = run(every, added_of(x, made, SLOTS, 60)), run(every, None)
    assert torch.equal(got[SLOTS < 0], plain[SLOTS < 0])
    assert (got[SLOTS >= 0] != plain[SLOTS >= 0]).any(dim=1).all()
    for rows in (slice(0, 1), slice(2, 40)):
        assert torch.equal(run(rows, added_of(x[rows], made, SLOTS[rows], 60)), got[rows])
    assert torch.equal(run(every, added_of(x, made, SLOTS, 33)), got), "in turns of 33 rows"
    if name == "bfloat16":
        for row, slot in enumerate(SLOTS.tolist()):
            more = merged(held, slot, shape) if slot >= 0 else 0.0
            both = (torch.cat([gate, up]).double() + more) @ x[row].double()
            wanted = torch.nn.functional.silu(both[:half]) * both[half:]
            ours = got[row].view(torch.bfloat16).double()
            assert ((ours - wanted).abs() <= 2**-7 * wanted.abs() + 1e-2).all()


@pytest.mark.parametrize("scaled", ["bfloat16", "e4m3"])
def test_norms_inside_linears_stay_there(scaled: str) -> None:
    """Both sides of a norm: what is read is divided behind what adapters add, and what is left is of all of it."""
    n, k = 256, 1152
    is_coded = scaled == "e4m3"
    shape = AdapterShape(((0, n),), MAX_RANK, k, n, False, is_coded)
    made = slots_of(shape, *([pairs_of(shape, seed, (rank,))[0]] for seed, rank in ((1, 20), (2, 1), (3, 5))))
    x = rows_of(scaled, 60, k)
    if is_coded:
        matrix = device_matrix(random_encoded(encoding("fp8"), n, k, 2))
    else:
        matrix = DeviceMatrix("bfloat16", n, k, random(n, k, seed=2, dtype=torch.bfloat16))
    space = torch.zeros(workspace_size(matrix.dtype, n, k, to_codes=True), dtype=torch.uint8)
    squares, factors = random(60, k // 64, seed=5).square(), torch.full((60,), torch.nan)
    bias, residual, gain = random(n, seed=6), random(60, n, seed=7), random(n, seed=8)

    def run(rows: slice, added: LowRows | None) -> tuple[torch.Tensor, ...]:
        count = rows.stop - rows.start
        read = torch.zeros(count, n)
        of_rows = RowSquares(squares[rows], factors, 1e-3, k)
        linear(x[rows], matrix, read, bias=bias, workspace=space, squares=of_rows, added=added)
        left, parts = torch.zeros(count, n), parts_of(gain, count)
        if is_coded:
            coded = torch.zeros(count, n + 64, dtype=torch.uint8).view(torch.float8_e4m3fn)
            parts = RowParts(gain, coded, parts.squares)
        linear(x[rows], matrix, left, residual=residual[rows], workspace=space, parts_out=parts, added=added)
        return read, left, parts.scaled.view(torch.uint8), parts.squares

    every = slice(0, 60)
    got, plain = run(every, added_of(x, made, SLOTS, 60)), run(every, None)
    for ours, theirs in zip(got, plain, strict=True):
        assert torch.equal(ours[SLOTS < 0], theirs[SLOTS < 0])
        assert (ours[SLOTS >= 0] != theirs[SLOTS >= 0]).any(dim=1).all()
    for rows in (slice(0, 1), slice(2, 40)):
        for ours, wanted in zip(run(rows, added_of(x[rows], made, SLOTS[rows], 16)), got, strict=True):
            assert torch.equal(ours, wanted[rows])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_leaf_of_a_sum_has_its_own(dtype: str, ordered_dot: None) -> None:
    """Of few rows and of many, in turns: a linear of leaves has the bits of the leaves' linears, added as a tree; two
    leaves those of a branch of four; rows without an adapter those of the sum that knows none."""
    n, k, chunks, kind = 80, 4 * 32, 4, getattr(torch, dtype)
    shape = AdapterShape(((0, 50), (50, 80)), MAX_RANK, k, n, False, False, leaves=chunks)
    held = [pairs_of(shape, 1, (20, 3)), pairs_of(shape, 2, (0, 17)), pairs_of(shape, 3, (4, 0))]
    made = slots_of(shape, *held)
    x, weight = random(120, k, seed=1, dtype=kind), random(n, k, seed=2, dtype=kind)
    bias, residual, matrix = random(n, seed=3), random(120, n, seed=4), DeviceMatrix(dtype, n, k, weight)
    space = torch.zeros(4 * workspace_size(dtype, n, k // 4), dtype=torch.uint8)

    def run(rows: slice, slots: torch.Tensor | None, turn: int = 120) -> torch.Tensor:
        out, added = residual[rows].clone(), None if slots is None else added_of(x[rows], made, slots[rows], 1)
        gathered = GatherSpace(torch.zeros(chunks * turn * n))
        linear_of_leaves(x[rows], matrix, out, chunks, gathered, bias, out, space, added=added)
        return out

    def branch(rows: slice, first: int, count: int, slots: torch.Tensor) -> torch.Tensor:
        """Some of the leaves, as a rank has them: as many leaves, or a linear that is one."""
        columns = slice(32 * first, 32 * (first + count))
        own = replace(shape, k=32 * count, leaves=count, inputs=(columns.start, columns.stop))
        part, out = slots_of(own, *held), torch.zeros(len(x[rows]), n)
        of_columns = DeviceMatrix(dtype, n, 32 * count, weight[:, columns])
        added = added_of(x[rows, columns], part, slots[rows], 120)
        if count == 1:
            linear(x[rows, columns], of_columns, out, workspace=space, added=added)
        else:
            gathered = GatherSpace(torch.zeros(count * 120 * n))
            linear_of_leaves(x[rows, columns], of_columns, out, count, gathered, workspace=space, added=added)
        return out

    for slots, every in ((SLOTS, slice(0, 60)), (MANY, slice(0, 120))):
        got, plain = run(every, slots), run(every, None)
        assert torch.equal(got[slots < 0], plain[slots < 0])
        assert (got[slots >= 0] != plain[slots >= 0]).any(dim=1).all()
        one, two, three, four = (branch(every, i, 1, slots) for i in range(4))
        assert torch.equal(residual[every] + ((one + two) + (three + four) + bias), got)
        halves = [branch(every, i, 2, slots) for i in (0, 2)]
        assert torch.equal(halves[0], one + two) and torch.equal(halves[1], three + four)
        assert torch.equal(run(every, slots, turn=50 if len(slots) == 60 else 70), got), "in turns"
        rows = slice(5, 6)
        assert torch.equal(run(rows, slots), got[rows])


def test_parts_are_for_few_rows() -> None:
    """The workspace is that of the largest call that splits."""
    assert num_part_elements(8192, 16, 4096) == num_part_elements(adapter_file.SPLIT_TOKENS, 16, 4096)
    assert num_part_elements(4, 16, 4096) == 8 * 256
    assert num_part_elements(4, 4 * 20, 4 * 4096, leaves=4) == 8 * (4 * 2) * 256
