"""Linears of the layers get adapters of low rank (LoRA): a second program, for steps in which a row has one.

Not one of pipeline.PASSES: it stands behind those that merge and move linears and before those that fuse them, see
pipeline.adapter_passes(). Weights stay as they are, so that both programs have the same constants, and what rows
without an adapter compute keeps its bits.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import ConstantDef, Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "adapters are added where their linear is computed, to the rows that have one and to no other"

#: Rows of a linear -> the step array with their adapters.
SLOTS = {"T": "adapter_slots", "S": "out_adapter_slots"}
#: Role of a linear that has no adapter -> what it is.
_WITHOUT = {"vocab": "a head over the vocabulary", "router": "a router of experts, no linear in PEFT"}
#: Ends the name of the weight of a module.
_WEIGHT = ".weight"


def run(graph: Graph, max_rank: int) -> PassRecord:
    """Change the graph in place. Args: max_rank: of the adapters; a multiple of what kernels take at once."""
    rw = Rewriter(graph, "add_adapters", WHY, "exact")
    linears = list(rw.nodes("linear"))
    weights = [linear.inputs["weight"].constant for linear in linears]
    # leaves of a sum that ranks share have other columns of the same
    times = Counter((part.source, each.columns) for each in weights if each is not None for part in each.segments)
    for linear in linears:
        with rw.attempt(linear):
            _add(rw, linear, max_rank, times)
    return rw.finish()


def _add(rw: Rewriter, linear: Node, max_rank: int, times: Counter[Any]) -> None:
    modules, weight = modules_of(linear), linear.inputs["weight"].constant
    assert weight is not None, "looked at"
    for name, _, _ in modules:
        if times[name + _WEIGHT, weight.columns] > 1:  # an adapter of it would have to be cut as it is
            raise NotFired(f"{name} holds the rows of several matrices")
    x, rows = linear.inputs["x"], linear.output.type.dims[0]
    if rows not in SLOTS:
        raise NotFired(f"adapters of a head over {rows} rows are not computed")
    slots = rw.step_array(SLOTS[str(rows)])
    # of what a rank has a part of, or a leaf
    of_part: dict[str, Any] = {"modules": modules}
    if any(part.start for part in weight.segments):
        of_part["module_rows"] = tuple(part.start for part in weight.segments)
    if weight.columns is not None:
        of_part["module_inputs"] = weight.columns
    attrs = (
        of_part | {"max_rank": max_rank} | {name: linear.attrs[name] for name in ("chunks",) if name in linear.attrs}
    )
    width = attrs.get("chunks", 1) * len(modules) * max_rank
    low = Value(f"{linear.output.name}l", TensorType("float32", (rows, width)))
    new = Node("adapter", {"x": x, "slots": slots}, attrs, (low,), linear.origin)
    inputs = linear.inputs | {"low": low, "slots": slots}
    changed = Node("linear", inputs, linear.attrs | of_part, linear.outputs, linear.origin)
    rw.replace((linear,), (new, changed))


def modules_of(linear: Node) -> tuple[tuple[str, int, int], ...]:
    """(module, first, end) of each matrix that a linear multiplies with, by the names of the weights.

    Raises: NotFired when it is not made of weights of the checkpoint.
    """
    if linear.inputs["weight"].constant is None:
        raise NotFired("it multiplies no constant")
    if linear.attrs.get("role") in _WITHOUT:
        raise NotFired(f"it is {_WITHOUT[linear.attrs['role']]}")
    found: list[tuple[str, int, int]] = []
    for source, first, end in _parts(linear.inputs["weight"].constant):
        if source is None or not source.endswith(_WEIGHT):
            raise NotFired(f"rows {first} to {end} are no weight of the checkpoint")
        found.append((source.removesuffix(_WEIGHT), first, end))
    return tuple(found)


def _parts(definition: ConstantDef) -> list[tuple[str | None, int, int]]:
    parts, row = [], 0
    for segment in definition.segments:
        parts.append((segment.source, row, row + len(segment)))
        row += len(segment)
    return parts
