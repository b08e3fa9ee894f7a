"""The five matrices of Llama-3.1-8B at many tokens: the plan that is taken, other plans, and torch's product.

Every plan gives the same bits, which is checked on the way; so the fastest may be written into matmul_plan.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import torch
from report import Row, verdict
from setup import Setup, attempt

if TYPE_CHECKING:
    from albireo.backends.cuda.matmul_plan import Plan

#: Rows of e4m3, a scale for each 128.
E4M3 = "fp8.g128.token"
SHAPES = {
    "qkv": (6144, 4096),
    "o": (4096, 4096),
    "gate_up": (28672, 4096),
    "down": (4096, 14336),
    "head": (128256, 4096),
}


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.linear  # noqa: F401 - where it is missing the part is skipped

    shapes = setup.pick(SHAPES, {"o": (64, 1024)})
    kinds = (("bfloat16", None), ("fp8", E4M3), ("fp8", "bfloat16"), ("int4.g128", "bfloat16"))
    cases = product(setup.pick(kinds, kinds[:2]), setup.pick((2048, 256, 8192), (70,)), shapes)
    for (dtype, kind), tokens, name in cases:
        # a head reads few rows of a prompt
        if setup.seconds_left > 3 and (name != "head" or (tokens == 256 and dtype == "bfloat16")):
            args = (setup, dtype, kind, name, *shapes[name], tokens)
            label = f"{dtype}{f' by {kind}' if kind else ''} {name} of {tokens}"
            yield from attempt(label, lambda args=args: _plans(*args))


def _plans(setup: Setup, dtype: str, kind: str | None, name: str, rows: int, cols: int, tokens: int) -> Iterator[Row]:
    """kind: of x, where that is not the weight's."""
    from inputs import activations, empty_rows
    from model import fill_matrix

    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.matmul import matmul
    from albireo.backends.cuda.kernels.matmul_e4m3 import matmul_e4m3
    from albireo.backends.cuda.kernels.parts.epilogue import Finish, act_code
    from albireo.backends.cuda.matmul_plan import e4m3_plan_for, plan_for

    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    (x, _), is_e4m3 = activations(setup, dtype, tokens, cols, kind), kind == E4M3
    dtype_text = f"{dtype}{f' by {kind}' if kind else ''}"
    act, n = (act_code("silu_mul"), rows // 2) if name == "gate_up" else (0, rows)
    out = empty_rows(setup, tokens, n, (E4M3 if is_e4m3 else "bfloat16") if act else "float32")
    if is_e4m3:
        taken = e4m3_plan_for(tokens, rows, cols, dtype, act > 0, True, setup.chip)
    else:
        taken = plan_for(tokens, rows, cols, dtype, True, setup.chip)
    space = torch.zeros(setup.pick(64 << 20, 4 << 20), dtype=torch.uint8, device=setup.device)
    flops = 2 * tokens * rows * cols
    if matrix.scale is None:
        weight, plain = matrix.codes.T, torch.empty((tokens, rows), dtype=x.dtype, device=setup.device)
        seconds = setup.seconds(lambda: torch.mm(x, weight, out=plain), rounds=7)
        yield Row(f"{dtype} {name} of {tokens}: torch.mm", flops / seconds / 1e12, "TFLOP/s", f"{seconds * 1e6:.0f} us")
    first: torch.Tensor | None = None
    plans = list(_variants(taken, dtype, is_e4m3, name, rows, cols, tokens))
    launches = {
        _text(plan, use_tma): partial(matmul_e4m3, x, matrix, Finish(out, n, act=act), plan=plan, workspace=space)
        if is_e4m3
        else partial(matmul, x, matrix, Finish(out, n, act=act), plan=plan, workspace=space, use_tma=use_tma)
        for plan, use_tma in plans
    }
    setup.warm(launches.values())
    found: dict[str, float] = {}
    for text, launch in launches.items():
        if setup.seconds_left < 2:
            break
        label = f"{dtype_text} {name} of {tokens}: {text}"
        args = (setup, launch, label, text, flops, found)
        yield from attempt(label, lambda args=args: _time(*args))
        if text not in found:
            continue
        bits = out.view(torch.uint8)
        first = bits.clone() if first is None else first
        if not torch.equal(first, bits):
            yield Row(label, note="other bits than the plan that is taken", is_good=False)
    now = _text(taken, True)
    if now in found:
        yield verdict(f"{dtype_text} {name} of {tokens}", "matmul_plan.plan_for", now, found)


def _text(plan: Plan, use_tma: bool) -> str:
    tile = plan.tile
    words = f"{tile.rows} x {tile.tokens} x {tile.k}, {tile.stages} stages, {_MODES[plan.mode]}"
    return words if use_tma else f"{words}, cp.async"


_MODES = ("registers", "memory", "split")


def _variants(
    taken: Plan, dtype: str, is_e4m3: bool, name: str, rows: int, cols: int, tokens: int
) -> Iterator[tuple[Plan, bool]]:
    """The one that is taken first, then what could be better."""
    from albireo.backends.cuda.kernels.parts.tiles import Tile
    from albireo.backends.cuda.matmul_plan import MEMORY, REGISTERS, SPLIT, Plan
    from albireo.backends.cuda.sum_parts import num_parts

    yield taken, True
    if not is_e4m3:  # there TMA is taken wherever the GPU has it
        yield taken, False
    if tokens < 100 or name == "head":
        return
    tiles = [Tile(128, 256, 64, 3, 8), Tile(128, 128, 64, 3, 8)]
    if dtype.startswith("int4"):
        # a group's own sums take as many registers again
        tiles = [Tile(128, 128, 256, 2, 8), Tile(128, 64, 256, 3, 8), Tile(128, 64, 256, 4, 8)]
    elif is_e4m3:
        # rows of 256: of gate and up 128 outputs, which share a scale
        tiles = [Tile(256, 128, 128, 3, 8), Tile(128, 128, 128, 4, 8), Tile(128, 128, 128, 5, 8)]
        tiles = [Tile(256, 64, 128, 4, 8), Tile(256, 128, 128, 4, 8)] if name == "gate_up" else tiles
    elif dtype == "fp8":
        # steps of whole words
        tiles = [Tile(128, 256, 128, 2, 8), Tile(128, 256, 128, 3, 8), Tile(128, 128, 128, 3, 8)]
    elif dtype == "bfloat16" and name in ("gate_up", "down"):
        tiles += [Tile(128, 256, 64, 4, 8), Tile(128, 128, 64, 4, 8), Tile(64, 128, 64, 4, 4)]
    modes = [REGISTERS] if num_parts(rows, cols, dtype) == 1 else [REGISTERS, MEMORY]
    modes += [SPLIT] if len(modes) == 2 and tokens <= 512 else []
    for tile, mode in product(tiles, modes):
        # two sets of sums of a wide tile are more than there are registers; of a narrow one they need no memory
        is_wide = tile.rows * tile.tokens > 128 * 128 or tile == tiles[0]
        fits = len(modes) == 1 or mode == SPLIT or (mode == MEMORY) == is_wide
        if fits and Plan(tile, mode) != taken:
            yield Plan(tile, mode), True


def _time(
    setup: Setup, launch: partial[None], label: str, text: str, flops: int, found: dict[str, float]
) -> Iterator[Row]:
    seconds = found[text] = setup.seconds(launch, rounds=7)
    yield Row(label, flops / seconds / 1e12, "TFLOP/s", f"{seconds * 1e6:.0f} us")
