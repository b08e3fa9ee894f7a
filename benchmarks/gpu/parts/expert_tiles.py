"""How a layer of experts is cut: widths of tiles, stages, programs that take turns, parts of sums apart or not.

Every cut gives the same bits, which is checked on the way; so the fastest may be written into expert_plan.py, or into
tile_width of expert_list.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from expert_layer import ExpertLayer
from report import Row, verdict
from setup import Setup, attempt


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.expert_linear  # noqa: F401 - where it is missing the part is skipped

    counts = setup.pick((64, 2048, 1, 256, 512), (9,))
    layer = ExpertLayer.of(setup, "bfloat16", max(counts))
    for count in counts:
        step = layer.step(count)
        for name in ("gate_up", "down"):
            if setup.seconds_left > 5:
                args = (setup, layer, step, name, count)
                yield from attempt(f"{name} of {count}", lambda args=args: _cuts(*args))


def _cuts(setup: Setup, layer: ExpertLayer, step: Any, name: str, count: int) -> Iterator[Row]:
    cuts = dict(_variants(setup, layer, name, count))
    found: dict[str, float] = {}
    first = None
    out = step.pairs if name == "down" else step.gated
    for text, (width, plan, programs) in list(cuts.items())[: setup.pick(99, 3)]:
        lists = step.route(width)
        launch = partial(step.planned, name, lists, plan, programs)
        setup.warm([launch])

        def measure(launch: partial[None] = launch, text: str = text) -> Iterator[Row]:
            found[text] = setup.seconds(launch, rounds=7)
            yield from ()

        yield from attempt(f"{name} of {count}: {text}", measure)
        if text in found:
            first = out.clone() if first is None else first
            if not setup.is_dry and not bool((out == first).all()):
                yield Row(f"{name} of {count}: {text}", note="other bits than the cut that is taken", is_good=False)
    if found:
        yield verdict(f"experts, {name} of {count} tokens", "expert_plan.plan_for", next(iter(cuts)), found)


def _variants(setup: Setup, layer: ExpertLayer, name: str, count: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The cut that is taken, then others: width of the list, plan, programs."""
    from albireo.backends.cuda.expert_list import most_items
    from albireo.backends.cuda.expert_plan import plan_for
    from albireo.backends.cuda.sum_parts import num_parts
    from albireo.backends.cuda.workspace import workspace_bytes

    matrix = layer.down if name == "down" else layer.gate_up
    experts, top_k = layer.lists.num_experts, layer.lists.top_k
    rows, cols = matrix.rows // experts, matrix.cols
    taken = layer.lists.width(count)
    for width in dict.fromkeys((taken, *(w for w in (8, 16, 32, 64, 128) if taken // 2 <= w <= 2 * taken))):
        most = most_items(count, experts, top_k, width)
        plan = plan_for(count, width, most, rows, cols, "bfloat16", False, setup.chip)
        yield _text(width, plan, None), (width, plan, None)
        if num_parts(rows, cols, "bfloat16") > 1 and count <= 8:
            other = replace(plan, is_split=not plan.is_split)
            elements = num_parts(rows, cols, "bfloat16") * most * -(-rows // 64) * 64 * plan.tile.tokens
            if not other.is_split or workspace_bytes(elements) <= layer.room.numel():
                yield _text(width, other, None), (width, other, None)
        for programs in (132, 264, 396):
            if width == taken and not plan.is_split:
                yield _text(width, plan, programs), (width, plan, programs)
        for stages in (3, 4, 5):
            tile = replace(plan.tile, stages=stages)
            if stages != plan.tile.stages and width == taken:
                yield _text(width, replace(plan, tile=tile), None), (width, replace(plan, tile=tile), None)
        if plan.by_tma and num_parts(rows, cols, "bfloat16") == 1:
            other = replace(plan, tile=replace(plan.tile, rows=384 - plan.tile.rows))
            yield _text(width, other, None), (width, other, None)
        if plan.by_tma:
            other = replace(plan, by_tma=False)
            yield _text(width, other, None), (width, other, None)


def _text(width: int, plan: Any, programs: int | None) -> str:
    tile = plan.tile
    words = f"{tile.rows} x {width} x {tile.k}, {tile.stages} stages, {tile.warps} warps"
    words += ", parts apart" if plan.is_split else ""
    words += ", by TMA" if plan.by_tma else ""
    return words if programs is None else f"{words}, {programs} programs"
