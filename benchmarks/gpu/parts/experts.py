"""A layer of experts in the shape of Qwen3-30B-A3B, and one of few, against torch in float64, launch by launch; and
bits of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import checks_of_shared
import torch
from checks import Check, Finding, run_checks, same_bits, worst
from checks_of_linears import gated_of
from expert_layer import FEW, SHAPE, ExpertLayer, products_of
from report import Row
from setup import Setup

#: Each width of a tile, and where parts of sums have programs of their own.
TOKENS = (1, 2, 8, 64, 100, 256, 512, 2048)
KINDS = (
    ("bfloat16", None),
    ("fp8", "fp8.g128.token"),
    ("fp8", "bfloat16"),
    ("int8", None),
    ("int4.g128", "bfloat16"),
    ("fp4.g32", "bfloat16"),
    ("fp8.g128", "fp8.g128.token"),
    ("int4.g32.affine", None),
    ("int8.g32", None),
    ("float16", None),
    ("float32", None),
)


def run(setup: Setup) -> Iterator[Row]:
    checks: dict[str, Check] = {
        f"experts in {dtype}{f' by {kind}' if kind else ''}": partial(layer_of, dtype, kind)
        for dtype, kind in setup.pick(KINDS, KINDS[:2])
    }
    few = (("bfloat16", None), ("fp8", "fp8.g128.token"), ("int4.g32", "bfloat16"))
    checks |= {
        f"few experts in {dtype}": partial(layer_of, dtype, kind, shape=FEW, name=f"few experts in {dtype}")
        for dtype, kind in setup.pick(few, few[2:])
    }
    yield from run_checks(setup, checks | checks_of_shared.CHECKS)


def layer_of(
    dtype: str, kind: str | None, setup: Setup, shape: tuple[int, int, int, int] = SHAPE, name: str = ""
) -> Iterator[Finding]:
    if kind == "fp8.g128.token" and setup.chip.capability < 89:
        return
    counts = setup.pick(TOKENS, (1, 9))
    layer = ExpertLayer.of(setup, dtype, counts[-1], kind, shape)
    whole = layer.step(counts[-1])
    steps = {count: _head_of(layer, whole, count) for count in counts}
    setup.warm(step.whole for step in steps.values())
    for step in steps.values():
        step.whole()
    name = name or f"experts in {dtype}{f' by {kind}' if kind else ''}"
    for count in (counts[-1], setup.pick(8, 1)):
        yield from _numbers(f"{name}, {count} tokens", layer, steps[count])
    top_k = layer.lists.top_k
    for what in ("gated", "pairs", "out"):
        found = {count: getattr(step, what) for count, step in steps.items()}
        # rows of pairs are compared by token
        rows = {count: out.reshape(count, -1) for count, out in found.items()}
        yield same_bits(setup, f"{name}: {what}, {top_k} experts, bits", rows)


def _head_of(layer: ExpertLayer, whole: Any, count: int) -> Any:
    """The first tokens of a step, as a step of their own."""
    step = layer.step(count)
    step.x.copy_(whole.x[:count])
    step.logits.copy_(whole.logits[:count])
    if step.middle.numel():
        step.middle.copy_(whole.middle[: len(step.middle)])
    return step


def _numbers(name: str, layer: ExpertLayer, step: Any) -> Iterator[Finding]:
    """Each by what the launch before it gave."""
    top_k, count = layer.lists.top_k, layer.lists.num_experts
    logits = step.logits.double()
    best, ids = logits.topk(top_k, 1)
    yield Finding(f"{name}: ids", float((ids != step.ids).sum()))
    yield worst(f"{name}: weights", step.weights, torch.softmax(best, 1), 2.0**-20 * torch.softmax(best, 1))
    x = step.values.repeat_interleave(top_k, 0)
    yield worst(f"{name}: gate_up", step.gated, *gated_of(*products_of(layer.gate_up, step.x, x, step.ids, count)))
    is_codes = bool(step.middle.numel())
    read = _values(layer, step) if is_codes else step.gated.double()
    wanted, allowed = products_of(layer.down, step.middle if is_codes else step.gated, read, step.ids, count)
    yield worst(f"{name}: down", step.pairs, wanted, allowed + 2.0**-22 * wanted.abs())
    terms = step.weights.double()[:, :, None] * step.pairs.double().view(*step.weights.shape, -1)
    yield worst(f"{name}: combine", step.out, terms.sum(1), top_k * 2.0**-23 * terms.abs().sum(1))


def _values(layer: ExpertLayer, step: Any) -> torch.Tensor:
    from albireo.backends.cuda.tokens import numbers_of as numbers_of_rows

    return numbers_of_rows(step.middle, layer.down.cols).double()
