"""Take the rows that leave the model behind the last attention, not before the head: what lies between works by row."""

from __future__ import annotations

from collections.abc import Sequence

from albireo.compiler.leaving_rows import (
    check_ends,
    entering,
    is_row_wise,
    leading_to,
    rows_of,
    weights_note,
    with_inputs,
)
from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import Graph, Node, Value
from albireo.graph.report import PassRecord

WHY = "no row looks at another behind the last attention, so only rows that get logits go on, of a prompt usually one"

#: Rows that leave the model -> where each is among all that do.
POSITIONS = {"logit_rows": "logit_pos", "top_rows": "top_pos"}


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "last_layer_rows", WHY, "exact")
    leaving: dict[Value, list[Node]] = {}
    for gather in rw.nodes("gather_rows"):
        if gather.inputs["rows"].name in POSITIONS:
            leaving.setdefault(gather.inputs["x"], []).append(gather)
    for gathers in leaving.values():
        with rw.attempt(*gathers):
            region = leading_to(rw, gathers, is_row_wise)
            _check_cut(rw, region, gathers)
            _move(rw, region, gathers)
    return rw.finish()


def _check_cut(rw: Rewriter, region: Sequence[Node], gathers: Sequence[Node]) -> None:
    """Raises: NotFired when the rows cannot be taken between two kernels, or when no linear lies behind."""
    if any(value.producer is not None and value.producer.op == "combine" for value in entering(region)):
        raise NotFired("pairs are those of all tokens; what a shared expert would save is less than three copies cost")
    is_useful = any(node.op == "linear" for node in region)
    behind = [*region, *gathers]
    check_ends(rw, entering(behind), behind, is_useful=is_useful)
    if not is_useful:
        raise NotFired("no linear lies between the last op across rows and the rows taken")


def _move(rw: Rewriter, region: Sequence[Node], gathers: Sequence[Node]) -> None:
    """gather(f(a, b)) -> gather(f(gather(a), gather(b))): the inner gathers take the rows of all outer ones."""
    out_rows, origin = rw.step_array("out_rows"), region[0].origin
    moved = {value: rows_of(value, f"{value.name}s") for value in entering(region)}
    new = [Node("gather_rows", {"x": x, "rows": out_rows}, {}, (rows,), origin) for x, rows in moved.items()]
    for node in region:
        moved |= {value: rows_of(value, value.name) for value in node.outputs}
        new.append(with_inputs(node, moved, tuple(moved[value] for value in node.outputs)))
    for gather in gathers:
        rows = gather.inputs["rows"]
        moved[rows] = rw.step_array(POSITIONS[rows.name])
        new.append(with_inputs(gather, moved, gather.outputs))
    rw.saves(*(value for node in region if node.op != "split" for value in node.outputs))
    rw.replace([*region, *gathers], new, at=region[-1])
    rw.record.notes.append(weights_note(region))
