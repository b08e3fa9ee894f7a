"""Linears of every type of weight, for few tokens and many, against torch in float64; and row by row, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from checks import Check, Finding, same_bits, worst
from inputs import activations, empty_rows, numbers_of, values_of
from model import fill_matrix
from setup import Setup

#: Forms of weight that a layer of production is not made of, or not alone.
TYPES = ("float32", "bfloat16", "float16", "fp8.g128", "int8", "int4.g128", "int4p.g64", "int8.g64.affine", "fp4.g32")
#: Those that are multiplied with another type, too, or with that alone.
OTHERS = dict.fromkeys(("int4.g32", "int4.g64", "int4.g128", "fp4.g32", "fp4.g16"), "bfloat16") | dict.fromkeys(
    ("fp8", "fp8.g128"), "fp8.g128.token"
)
#: Rows of e4m3, a scale for each 128.
E4M3 = "fp8.g128.token"
#: Each width of a tile of few tokens; then of many: two, split and not, and where sums are kept in memory.
TOKENS = (1, 8, 16, 17, 33, 64, 65, 129, 200, 257, 2049)


def unit_of(x: torch.Tensor, cols: int) -> float:
    """What a sum may be off by, as a part of its terms' sizes: float32 sums; Hopper's of e4m3 have 14 bits."""
    return 2.0**-11 if x.dtype == torch.float8_e4m3fn else 2.0**-24 * cols**0.5 * 4


def linear_of(dtype: str, kind: str | None, setup: Setup) -> Iterator[Finding]:
    """kind: of x, where that is not the encoding's own."""
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.linear import linear, workspace_size

    if kind == E4M3 and setup.chip.capability < 89:
        return
    rows, cols = setup.pick((4096, 4096), (64, 256))
    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    space = torch.zeros(workspace_size(dtype, rows, cols), dtype=torch.uint8, device=setup.device)
    numbers = numbers_of(matrix)
    tokens = setup.pick(TOKENS if kind == E4M3 else (1, 8, 17, 64, 65, 200, 257, 2049), (2,))
    x, values = activations(setup, dtype, tokens[-1], cols, kind)
    name = f"linear {dtype}{f' by {kind}' if kind else ''}"
    wanted, sizes = values @ numbers.T, values.abs() @ numbers.abs().T
    found = {count: torch.empty((count, rows), device=setup.device) for count in tokens}
    launches = [partial(linear, x[:count], matrix, found[count], workspace=space) for count in tokens]
    setup.warm(launches)
    for count, launch in zip(tokens, launches, strict=True):
        launch()
        yield worst(f"{name}, {count} tokens", found[count], wanted[:count], unit_of(x, cols) * sizes[:count])
    yield same_bits(setup, f"{name}, a row's bits in all of them", found)


def layer_of(dtype: str, kind: str, setup: Setup) -> Iterator[Finding]:
    """The four linears of a layer as production has them: norms inside, residuals, the activation; x is bfloat16, or
    rows of e4m3, and so are then what a norm is made of and the product of gate and up.

    Output, gate and up, down, then q, k and v of the next layer: each reads what the one before it left.
    """
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.linear import linear, workspace_size

    width, inner, heads = setup.pick((4096, 14336, 6144), (128, 64, 96))
    shapes = {"o": (width, width), "gate_up": (2 * inner, width), "down": (width, inner), "qkv": (heads, width)}
    matrices = {name: empty_matrix(dtype, *shape, setup.device) for name, shape in shapes.items()}
    for seed, matrix in enumerate(matrices.values()):
        fill_matrix(matrix, setup, seed)
    if kind == E4M3 and setup.chip.capability < 89:
        return
    size = max(workspace_size(dtype, *shape, kind == E4M3) for shape in shapes.values())
    space = torch.zeros(size, dtype=torch.uint8, device=setup.device)
    gain, counts = 1 + 0.1 * setup.random(width), setup.pick(TOKENS, (2, 70))
    (x, _), residual = activations(setup, dtype, counts[-1], width, kind), setup.random(counts[-1], width, seed=2)

    def outs(count: int) -> tuple[torch.Tensor, ...]:
        row, parts, read = _norm_room(setup, gain, count, kind)
        linear(x[:count], matrices["o"], row, residual=residual[:count], workspace=space, parts_out=parts)
        gated = empty_rows(setup, count, inner, kind)
        linear(parts.scaled, matrices["gate_up"], gated, act="silu_mul", n=inner, workspace=space, squares=read)
        last, last_parts, last_read = _norm_room(setup, gain, count, kind)
        linear(gated, matrices["down"], last, residual=row, workspace=space, parts_out=last_parts)
        qkv = torch.empty((count, heads), device=setup.device)
        linear(last_parts.scaled, matrices["qkv"], qkv, workspace=space, squares=last_read)
        return row, gated, last, qkv, parts.scaled, last_parts.scaled

    setup.warm(partial(outs, count) for count in counts)
    names = (*shapes, "o, scaled", "down, scaled")
    found: dict[str, dict[int, torch.Tensor]] = {name: {} for name in names}
    for count in counts:
        for name, out in zip(names, outs(count), strict=True):
            found[name][count] = out
    largest = {name: steps[counts[-1]] for name, steps in found.items()}
    widths = {"x": width, "gate_up": inner, "o, scaled": width, "down, scaled": width}
    read_rows = {"x": x} | {name: largest[name] for name in widths if name != "x"}
    values = {name: values_of(rows, widths[name]) for name, rows in read_rows.items()}
    what = f"layer of {dtype}{f' by {kind}' * (kind == E4M3)}"
    yield from _numbers(what, matrices, largest, values, unit_of(x, width), residual, gain)
    for name, steps in found.items():
        bits = {count: out.view(torch.uint8) if kind == E4M3 else out for count, out in steps.items()}
        yield same_bits(setup, f"{what}: {name}, bits", bits)


def codes_of(dtype: str, kind: str, setup: Setup) -> Iterator[Finding]:
    """The same linears where rows of codes are read: each by itself, with what production has behind its sums."""
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.linear import linear, workspace_size

    width, inner, heads = setup.pick((4096, 14336, 6144), (128, 64, 96))
    shapes = {"o": (width, width), "gate_up": (2 * inner, width), "down": (width, inner), "qkv": (heads, width)}
    counts = setup.pick(TOKENS, (2, 70))
    for seed, (name, (rows, cols)) in enumerate(list(shapes.items())[: setup.pick(4, 2)]):
        matrix = empty_matrix(dtype, rows, cols, setup.device)
        fill_matrix(matrix, setup, seed)
        space = torch.zeros(workspace_size(dtype, rows, cols), dtype=torch.uint8, device=setup.device)
        (x, values), numbers = activations(setup, dtype, counts[-1], cols, kind), numbers_of(matrix)
        residual = setup.random(counts[-1], rows, seed=2) if name in ("o", "down") else None

        def out_of(
            count: int, matrix: Any = matrix, x: torch.Tensor = x, residual: torch.Tensor | None = residual,
            space: torch.Tensor = space, is_gated: bool = name == "gate_up",
        ) -> torch.Tensor:  # fmt: skip
            cols, kept = (inner, torch.bfloat16) if is_gated else (matrix.rows, torch.float32)
            out = torch.empty((count, cols), dtype=kept, device=setup.device)
            more = None if residual is None else residual[:count]
            act = "silu_mul" if is_gated else "none"
            linear(x[:count], matrix, out, residual=more, act=act, workspace=space)
            return out

        setup.warm(partial(out_of, count) for count in counts)
        found = {count: out_of(count) for count in counts}
        wanted, allowed = values @ numbers.T, unit_of(values, cols) * (values.abs() @ numbers.abs().T)
        if name == "gate_up":
            wanted, allowed = gated_of(wanted, allowed)
        elif residual is not None:
            wanted += residual
        what = f"{name} of {dtype} by {kind}"
        yield worst(what, found[counts[-1]], wanted, allowed + 2.0**-22 * wanted.abs())
        yield same_bits(setup, f"{what}, bits", found)


def gated_of(wanted: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """silu(gate) * up of sums, 32 of each in turn; and what it may be off by, bfloat16's rounding included."""
    (gate, up), (gate_off, up_off) = (
        part.view(len(part), -1, 2, 32).transpose(1, 2).flatten(2).unbind(1) for part in (wanted, allowed)
    )
    silu = torch.nn.functional.silu(gate)
    off = 1.1 * gate_off * (up.abs() + up_off) + silu.abs() * up_off
    return silu * up, off + 2.0**-7 * (silu * up).abs()


def _norm_room(setup: Setup, gain: torch.Tensor, count: int, kind: str) -> tuple[torch.Tensor, Any, Any]:
    from albireo.backends.cuda.kernels.parts.row_squares import RowParts, RowSquares

    width = len(gain)
    row = torch.empty((count, width), device=setup.device)
    squares = torch.empty((count, -(-width // 64)), device=setup.device)
    scaled = empty_rows(setup, count, width, kind)
    factors = torch.empty(count, device=setup.device)
    return row, RowParts(gain, scaled, squares), RowSquares(squares, factors, 1e-5, width)


def _rounding(numbers: torch.Tensor, is_e4m3: bool) -> torch.Tensor:
    """What numbers may be off by when they are rounded: to bfloat16, or to e4m3, whose least step is the group's."""
    if not is_e4m3:
        return 2.0**-8 * numbers.abs()
    lines = torch.nn.functional.pad(numbers.abs(), (0, -numbers.shape[1] % 128)).unflatten(1, (-1, 128))
    least = 2.0**-18 * lines.amax(2, keepdim=True).expand_as(lines).flatten(1)[:, : numbers.shape[1]]
    return 2.0**-4 * (1 + 2.0**-20) * numbers.abs() + least


def _numbers(
    what: str,
    matrices: dict[str, Any],
    outs: dict[str, torch.Tensor],
    values: dict[str, torch.Tensor],
    unit: float,
    residual: torch.Tensor,
    gain: torch.Tensor,
) -> Iterator[Finding]:
    """Each linear by what the one before it gave, so that errors do not add up. values: what rows that are read stand
    for; unit: see unit_of()."""
    is_e4m3 = unit == 2.0**-11

    def product(name: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = numbers_of(matrices[name])
        return x @ numbers.T, unit * (x.abs() @ numbers.abs().T)

    def summed(name: str, x: torch.Tensor, more: torch.Tensor) -> Iterator[Finding]:
        wanted, allowed = product(name, x)
        wanted += more
        yield worst(f"{what}: {name}", outs[name], wanted, allowed + 2.0**-22 * wanted.abs())
        scaled = (outs[name] * gain).double()
        yield worst(f"{what}: {name}, scaled", values[f"{name}, scaled"], scaled, _rounding(scaled, is_e4m3))

    def divided(name: str, x: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wanted, allowed = product(name, x)
        root = (row.double().square().mean(1, keepdim=True) + 1e-5).sqrt()
        wanted /= root
        return wanted, allowed / root + 2.0**-20 * wanted.abs()

    yield from summed("o", values["x"], residual)
    wanted, allowed = gated_of(*divided("gate_up", values["o, scaled"], outs["o"]))
    yield worst(f"{what}: gate_up", values["gate_up"], wanted, allowed + is_e4m3 * 2 * _rounding(wanted, True))
    yield from summed("down", values["gate_up"], outs["o"])
    yield worst(f"{what}: qkv", outs["qkv"], *divided("qkv", values["down, scaled"], outs["down"]))


def plans_of(dtype: str, setup: Setup) -> Iterator[Finding]:
    """Down, in every way that its sums can be cut, by TMA and without: the bits of the plan that is taken."""
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.matmul import matmul
    from albireo.backends.cuda.kernels.parts.epilogue import Finish
    from albireo.backends.cuda.matmul_plan import MEMORY, REGISTERS, SPLIT, Plan, plan_for

    rows, cols = setup.pick((4096, 14336), (64, 1024))
    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    space = torch.zeros(setup.pick(64 << 20, 4 << 20), dtype=torch.uint8, device=setup.device)
    names = {REGISTERS: "registers", MEMORY: "memory", SPLIT: "split"}
    for tokens in setup.pick((200, 2049), (70,)):
        x = setup.random(tokens, cols, dtype=torch.bfloat16)
        taken = plan_for(tokens, rows, cols, dtype, True, setup.chip)
        narrow = plan_for(100, rows, cols, dtype, False, setup.chip).tile
        plans = [(Plan(narrow, REGISTERS), True), (Plan(taken.tile, MEMORY), True), (taken, False)]
        plans += [(Plan(taken.tile, SPLIT), True)] if tokens <= 256 else []
        first = torch.empty((tokens, rows), device=setup.device)
        matmul(x, matrix, Finish(first, rows), workspace=space)
        for plan, use_tma in plans[: setup.pick(4, 1)]:
            out = torch.empty_like(first)
            matmul(x, matrix, Finish(out, rows), plan=plan, workspace=space, use_tma=use_tma)
            what = f"{names[plan.mode]}, {plan.tile.rows} x {plan.tile.tokens}{'' if use_tma else ', cp.async'}"
            yield same_bits(setup, f"down of {dtype}, {tokens} tokens: {what}", {tokens - 1: out[:-1], tokens: first})


def checks_of(dtype: str) -> dict[str, Check]:
    """Of a type of weight that layers of production are made of: with bfloat16 activations, then with codes."""
    checks: dict[str, Check] = {f"layer of {dtype}": partial(layer_of, dtype, "bfloat16")}
    if dtype == "fp8":
        checks |= {f"layer of {each} by {E4M3}": partial(layer_of, each, E4M3) for each in ("fp8", "fp8.g128")}
    return checks | {f"plans of {dtype}": partial(plans_of, dtype)}


CHECKS: dict[str, Check] = {f"linear {dtype}": partial(linear_of, dtype, None) for dtype in TYPES}
CHECKS |= {"layer of int8": partial(codes_of, "int8", "int8.token")}
CHECKS |= {f"linear {dtype} by {kind}": partial(linear_of, dtype, kind) for dtype, kind in OTHERS.items()}
