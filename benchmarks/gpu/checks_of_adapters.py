"""Adapters beside linears: against torch in float64, the same bits in any company, and of rows that have no adapter the
bits of the linear that knows none, whatever is behind its sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from checks import Check, Finding, same_bits, worst
from inputs import activations, empty_rows, numbers_of
from model import fill_matrix
from setup import Setup

if TYPE_CHECKING:
    from albireo.backends.cuda.adapters import LinearAdapters
    from albireo.backends.cuda.kernels.adapter_add import LowRows

#: Type of the weight, type of what it reads, where that is not the encoding's own.
KINDS = (
    ("float32", None),
    ("bfloat16", None),
    ("int8", None),
    ("int4.g128", "bfloat16"),
    ("fp8", "bfloat16"),
    ("fp8", "fp8.g128.token"),
)
RANK, SLOTS = 16, 3
#: Few, split and not, many, and more than one turn of sums.
TOKENS = (1, 8, 17, 64, 65, 257, 2049)


def linears_of(dtype: str, kind: str | None, setup: Setup) -> Iterator[Finding]:
    """A linear with a residual, and one of gate and up, each whole and without."""
    from albireo.backends.cuda.adapter_shapes import TURN_TOKENS, AdapterShape
    from albireo.backends.cuda.adapters import LinearAdapters
    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.adapter import adapter, num_part_elements
    from albireo.backends.cuda.kernels.adapter_add import LowRows
    from albireo.backends.cuda.linear import linear, workspace_size
    from albireo.backends.cuda.workspace import workspace_bytes

    is_coded = kind == "fp8.g128.token"
    if is_coded and setup.chip.capability < 89:
        return
    (rows, cols), counts = setup.pick((4096, 4096), (256, 256)), setup.pick(TOKENS, (2, 70))
    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    x, values = activations(setup, dtype, counts[-1], cols, kind)
    slots = (torch.arange(counts[-1]) % (SLOTS + 1) - 1).int().to(setup.device)
    residual, name = setup.random(counts[-1], rows, seed=5), f"adapters, {dtype}{f' by {kind}' if kind else ''}"
    size = max(workspace_size(dtype, rows, cols, True), workspace_bytes(num_part_elements(counts[-1], 2 * RANK, cols)))
    space = torch.zeros(size, dtype=torch.uint8, device=setup.device)
    sums = torch.empty(min(TURN_TOKENS, counts[-1]) * rows, device=setup.device)

    def made(columns: tuple[tuple[int, int], ...], has_gate: bool) -> LinearAdapters:
        shape = AdapterShape(columns, RANK, cols, rows, has_gate, is_coded)
        found = LinearAdapters.of(shape, SLOTS, setup.device)
        for slot in range(SLOTS):
            pairs = [
                (setup.random(RANK, cols, seed=slot) / 64, setup.random(end - first, RANK, seed=9 + slot) / 4)
                for first, end in columns
            ]
            found.put(slot, [(a.cpu().numpy(), b.cpu().numpy()) for a, b in pairs])
        return found

    def added(of: LinearAdapters, count: int) -> LowRows:
        low = torch.empty(count, of.shape.ranks, device=setup.device)
        adapter(x[:count], of.a, slots[:count], low, cols, space)
        return LowRows(low, slots[:count], of.b, of.ranks, of.module_of, sums)

    whole, gated = made(((0, rows),), False), made(((0, rows // 2), (rows // 2, rows)), True)
    written = kind if is_coded else "bfloat16" if dtype != "float32" else dtype

    def outs(count: int, has_adapters: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        out, product = residual[:count].clone(), empty_rows(setup, count, rows // 2, written)
        more = (added(whole, count), added(gated, count)) if has_adapters else (None, None)
        linear(x[:count], matrix, out, residual=out, workspace=space, added=more[0])
        linear(x[:count], matrix, product, act="silu_mul", n=rows // 2, workspace=space, added=more[1])
        return out, product.view(torch.uint8) if is_coded else product

    setup.warm(partial(outs, count, has) for count in counts for has in (True, False))
    found: list[dict[int, torch.Tensor]] = [{}, {}]
    is_plain, differ = slots < 0, []
    for count in counts:
        for bits, out, plain in zip(found, outs(count), outs(count, has_adapters=False), strict=True):
            bits[count] = out
            if not torch.equal(out[is_plain[:count]], plain[is_plain[:count]]):
                differ.append(str(count))
    yield Finding(f"{name}: rows without one", float("inf") if differ else 0.0, f"differ in {', '.join(differ)}")
    for what, bits in zip(("residual", "gate and up"), found, strict=True):
        yield same_bits(setup, f"{name}: {what}, a row's bits", bits)
    numbers, wanted, sizes = numbers_of(matrix), residual.double(), residual.double().abs()
    for slot in range(-1, SLOTS):
        of_slot = slots == slot
        wanted[of_slot] += values[of_slot] @ numbers.T
        sizes[of_slot] += values[of_slot].abs() @ numbers.abs().T
        if slot >= 0:
            a, b = (setup.random(RANK, cols, seed=slot) / 64).double(), (setup.random(rows, RANK, seed=9 + slot) / 4)
            wanted[of_slot] += values[of_slot] @ a.T @ b.double().T
            sizes[of_slot] += values[of_slot].abs() @ a.abs().T @ b.double().abs().T
    unit = 2.0**-11 if is_coded else 2.0**-24 * cols**0.5 * 4
    yield worst(f"{name}: residual, {counts[-1]} tokens", found[0][counts[-1]], wanted, unit * sizes)


CHECKS: dict[str, Check] = {f"adapters, {dtype}, {kind}": partial(linears_of, dtype, kind) for dtype, kind in KINDS}
