"""The gate and up linears of a gated MLP, which read the same input, become one; gate rows first. So do those of
experts, expert by expert.
"""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, made_by, merge_linears, merged_name
from albireo.graph.node import ConstantDef, Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "one linear reads its input once and holds a gate and its up in the same tile, where they are multiplied"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "merge_gate_up", WHY, "exact")
    for mul in rw.nodes("mul"):
        found = _gate_up_act(mul)
        if found is not None:
            gate, up, act = found
            with rw.attempt(gate, up, act, mul):
                for node in found:
                    rw.sole_user(node.output)
                if gate.op == "expert_linear":
                    _merge_experts(rw, gate, up)
                else:
                    merge_linears(rw, (gate, up))
    return rw.finish()


def _gate_up_act(mul: Node) -> tuple[Node, Node, Node] | None:
    """The two linears and the unary behind mul(unary(gate), up), whichever operand comes first."""
    x, y = mul.inputs["x"], mul.inputs["y"]
    for gated, straight in ((x, y), (y, x)):
        act, up = made_by(gated, "unary"), straight.producer
        if act is None or up is None or up.op not in ("linear", "expert_linear"):
            continue
        gate = made_by(act.inputs["x"], up.op)
        if gate is not None:
            return gate, up, act
    return None


def _merge_experts(rw: Rewriter, gate: Node, up: Node) -> None:
    """Of each expert the rows of gate, then those of up."""
    if any(gate.inputs[role] is not up.inputs[role] for role in ("x", "ids")):
        raise NotFired("the experts' linears do not read the same rows, or are not of the same experts")
    a, b, count = gate.inputs["weight"], up.inputs["weight"], int(gate.attrs["num_experts"])
    if a.type != b.type or a.constant is None or b.constant is None:
        raise NotFired(f"weights differ: {a.type} and {b.type}")
    blocks = zip(a.constant.blocks(count), b.constant.blocks(count), strict=True)
    definition = ConstantDef(tuple(s for pair in blocks for block in pair for s in block.segments))
    type_ = TensorType(a.type.dtype, (definition.num_rows, *a.type.dims[1:]))
    weight = rw.add_constant(Value(merged_name([a.name, b.name]), type_, constant=definition))
    size = int(gate.output.type.dims[1])
    merged = Value(f"{gate.output.name}m", TensorType("float32", ("P", 2 * size)))
    attrs = {name: gate.attrs[name] for name in ("num_experts", "top_k")}
    origin = gate.origin.rpartition(".")[0]
    linear = Node("expert_linear", gate.inputs | {"weight": weight}, attrs, (merged,), origin)
    split = Node("split", {"x": merged}, {"sizes": (size, size)}, (gate.output, up.output), origin)
    rw.saves_bytes(gate.inputs["x"].type, 1)
    rw.replace((gate, up), (linear, split), at="first")
