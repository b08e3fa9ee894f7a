"""Linears of every type of weight, for few tokens and many, against torch in float64; and row by row, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from inputs import activations, numbers_of
from model import fill_matrix
from setup import Setup

#: Every form of weight that a kernel reads.
TYPES = ("float32", "bfloat16", "float16", "fp8", "fp8.g128", "int8", "int4.g128", "int4p.g64", "int8.g64.affine")
#: Those that are multiplied with another type, too.
OTHERS = dict.fromkeys(("int4.g32", "int4.g64", "int4.g128"), "bfloat16") | dict.fromkeys(
    ("fp8", "fp8.g128"), "fp8.token"
)


def linear_of(dtype: str, kind: str | None, setup: Setup) -> Iterator[tuple[str, float]]:
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.linear import linear, workspace_size

    if kind == "fp8.token" and setup.chip.capability < 89:
        return
    rows, cols = setup.pick((4096, 4096), (64, 256))
    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    space = torch.zeros(workspace_size(dtype, rows, cols), dtype=torch.uint8, device=setup.device)
    numbers = numbers_of(matrix)
    tokens = setup.pick((1, 17, 64, 100, 200, 600), (2,))
    x, values = activations(setup, dtype, tokens[-1], cols, kind)
    name = f"linear {dtype}{f' by {kind}' if kind else ''}"
    found = {}
    for count in tokens:
        out = torch.empty((count, rows), device=setup.device)
        linear(x[:count], matrix, out, workspace=space)
        wanted = values[:count] @ numbers.T
        # float32 sums, and fp8 weights rounded to bfloat16 with their scales
        unit = 2.0**-8 if dtype.startswith("fp8") else 2.0**-24 * cols**0.5 * 4
        allowed = unit * (values[:count].abs() @ numbers.abs().T)
        found[count] = out
        yield f"{name}, {count} tokens", float(((out.double() - wanted).abs() / allowed).max())
    same = all(torch.equal(out[0], found[tokens[-1]][0]) for out in found.values())
    yield f"{name}, a row's bits in all of them", 0.0 if same else float("inf")


def norms_inside(setup: Setup) -> Iterator[tuple[str, float]]:
    """A linear that leaves what a norm is made of, and one that divides by it, against both done apart."""
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.parts.row_squares import RowParts, RowSquares
    from albireo.backends.cuda.linear import linear, workspace_size

    size = setup.pick(4096, 128)
    matrix = empty_matrix("bfloat16", size, size, setup.device)
    fill_matrix(matrix, setup, 1)
    space = torch.zeros(workspace_size("bfloat16", size, size), dtype=torch.uint8, device=setup.device)
    gain = 1 + 0.1 * setup.random(size)
    tokens = setup.pick((1, 64, 200), (2,))
    x, residual = setup.random(tokens[-1], size, dtype=torch.bfloat16), setup.random(tokens[-1], size, seed=2)
    found = {}
    for count in tokens:
        row, out = torch.empty((count, size), device=setup.device), torch.empty((count, size), device=setup.device)
        squares = torch.empty((count, -(-size // 64)), device=setup.device)
        parts = RowParts(gain, torch.empty_like(x[:count]), squares)
        linear(x[:count], matrix, row, residual=residual[:count], workspace=space, parts_out=parts)
        read = RowSquares(squares, torch.empty(count, device=setup.device), 1e-5, size)
        linear(parts.scaled, matrix, out, workspace=space, squares=read)
        normed = (row * gain).bfloat16().double() / (row.double().square().mean(1, keepdim=True) + 1e-5).sqrt()
        allowed = 2.0**-24 * size**0.5 * 8 * (normed.abs() @ matrix.codes.double().abs().T)
        found[count] = out
        yield (
            f"norms inside linears, {count} tokens",
            float(((out - normed @ matrix.codes.double().T) / allowed).abs().max()),
        )
    same = all(torch.equal(out[0], found[tokens[-1]][0]) for out in found.values())
    yield "norms inside linears, a row's bits in all of them", 0.0 if same else float("inf")


CHECKS = {f"linear {dtype}": partial(linear_of, dtype, None) for dtype in TYPES}
CHECKS |= {f"linear {dtype} by {kind}": partial(linear_of, dtype, kind) for dtype, kind in OTHERS.items()}
CHECKS |= {"norms inside linears": norms_inside}
