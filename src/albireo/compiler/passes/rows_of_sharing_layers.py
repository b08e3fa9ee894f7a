"""Take the rows that leave the model in front of the layers that read keys and values of others, not behind them.

What such a layer computes of a row is read by no other row: it leaves nothing in a cache.
"""

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

WHY = "layers that write no keys and values are computed for rows that get logits only, of a prompt usually one"


def run(graph: Graph) -> PassRecord:
    """Behind last_layer_rows, where the rows are taken behind the last attention."""
    rw = Rewriter(graph, "rows_of_sharing_layers", WHY, "exact")
    gathers = [node for node in rw.nodes("gather_rows") if node.inputs["rows"].name == "out_rows"]
    sharing = _sharing(rw)
    if gathers and sharing:
        with rw.attempt(*gathers):
            _move(rw, gathers, sharing)
    return rw.finish()


def _sharing(rw: Rewriter) -> set[Node]:
    """Attentions of layers that read what another layer wrote; the first that reads a cache is its writer's."""
    written: set[int] = set()
    found = set()
    for node in rw.nodes("attention"):
        layer = int(node.attrs["layer"])
        if layer in written:
            found.add(node)
        written.add(layer)
    return found


def _move(rw: Rewriter, gathers: Sequence[Node], sharing: set[Node]) -> None:
    """gather(f(a, b)) -> f(gather(a), gather(b)), where some of f are rotations and attentions of these rows."""
    region = leading_to(rw, gathers, lambda node: is_row_wise(node) or node.op == "rope" or node in sharing)
    if not sharing.intersection(region):
        raise NotFired("no attention leads to the rows taken alone")
    values = entering(region)
    check_ends(rw, values, [*region, *gathers])
    out_rows, origin = gathers[0].inputs["rows"], region[0].origin
    taken = {gather.inputs["x"]: gather for gather in gathers}
    if len(taken) < len(gathers):
        raise NotFired("rows of one value are taken twice")

    def moved_to(value: Value, name: str) -> Value:
        found = taken[value].output if value in taken else rows_of(value, name)
        found.name = name  # of an op of the model, by which it is known
        return found

    moved = {value: moved_to(value, f"{value.name}s") for value in values}
    new = [Node("gather_rows", {"x": x, "rows": out_rows}, {}, (rows,), origin) for x, rows in moved.items()]
    for node in region:
        moved |= {value: moved_to(value, value.name) for value in node.outputs}
        new.append(with_inputs(node, moved, tuple(moved[value] for value in node.outputs)))
        if node.op in ("rope", "attention"):
            new[-1].inputs["rows"] = out_rows
    rw.saves(*(value for node in region if node.op != "split" for value in node.outputs))
    rw.replace([*region, *(gather for value, gather in taken.items() if value in moved)], new, at=region[-1])
    rw.record.notes.append(weights_note(region))
