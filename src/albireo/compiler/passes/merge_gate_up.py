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
    for node in (*rw.nodes("mul"), *rw.nodes("clamped_swiglu")):
        found = _gate_up_act(node) if node.op == "mul" else _gate_up(node)
        if found:
            gate, up, *_ = found
            with rw.attempt(*found, node):
                for each in found:
                    rw.sole_user(each.output)
                if gate.op == "expert_linear":
                    _merge_experts(rw, gate, up)
                else:
                    merge_linears(rw, (gate, up))
    return rw.finish()


def _gate_up_act(mul: Node) -> tuple[Node, ...]:
    """The two linears and the unary behind mul(unary(gate), up), whichever operand comes first; none where there are
    no such."""
    x, y = mul.inputs["x"], mul.inputs["y"]
    for gated, straight in ((x, y), (y, x)):
        act, up = made_by(gated, "unary"), straight.producer
        if act is None or up is None or up.op not in ("linear", "expert_linear"):
            continue
        gate = made_by(act.inputs["x"], up.op)
        if gate is not None:
            return gate, up, act
    return ()


def _gate_up(act: Node) -> tuple[Node, ...]:
    """The two linears behind an act of both."""
    gate, up = act.inputs["x"].producer, act.inputs["y"].producer
    if gate is None or up is None or gate.op not in ("linear", "expert_linear") or up.op != gate.op:
        return ()
    return gate, up


def _merge_experts(rw: Rewriter, gate: Node, up: Node) -> None:
    """Of each expert the rows of gate, then those of up."""
    if any(gate.inputs[role] is not up.inputs[role] for role in ("x", "ids")):
        raise NotFired("the experts' linears do not read the same rows, or are not of the same experts")
    if ("bias" in gate.inputs) != ("bias" in up.inputs):
        raise NotFired("only one of the experts' linears has a bias")
    roles = ("weight", "bias") if "bias" in gate.inputs else ("weight",)
    constants = {
        role: _merged(rw, gate.inputs[role], up.inputs[role], int(gate.attrs["num_experts"])) for role in roles
    }
    size = int(gate.output.type.dims[1])
    merged = Value(f"{gate.output.name}m", TensorType("float32", ("P", 2 * size)))
    attrs = {name: gate.attrs[name] for name in ("num_experts", "top_k")}
    origin = gate.origin.rpartition(".")[0]
    linear = Node("expert_linear", gate.inputs | constants, attrs, (merged,), origin)
    split = Node("split", {"x": merged}, {"sizes": (size, size)}, (gate.output, up.output), origin)
    rw.saves_bytes(gate.inputs["x"].type, 1)
    rw.replace((gate, up), (linear, split), at="first")


def _merged(rw: Rewriter, a: Value, b: Value, count: int) -> Value:
    """Of count experts the rows of a, then those of b, as one constant."""
    if a.type != b.type or a.constant is None or b.constant is None:
        raise NotFired(f"weights differ: {a.type} and {b.type}")
    blocks = zip(a.constant.blocks(count), b.constant.blocks(count), strict=True)
    definition = ConstantDef(tuple(s for pair in blocks for block in pair for s in block.segments))
    type_ = TensorType(a.type.dtype, (definition.num_rows, *a.type.dims[1:]))
    return rw.add_constant(Value(merged_name([a.name, b.name]), type_, constant=definition))
