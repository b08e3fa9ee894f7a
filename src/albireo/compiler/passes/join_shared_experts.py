"""An expert that every row has becomes one of those that rows choose, always chosen: its matrices lie behind theirs.

It has to be as wide as they are and held alike, and to do the same between its matrices. What it counts is one, or the
sigmoid of its gate. All layers of a model, or none: a row has as many experts in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from albireo.compiler.rewrite import NotFired, Rewriter, merged_name
from albireo.graph.node import ConstantDef, Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "two or three launches fewer, and the sum of all experts of a row makes the norm behind it"

#: What may stand between the matrices of an expert.
_BETWEEN = ("split", "unary", "mul", "clip", "clamped_swiglu", "cast")


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "join_shared_experts", WHY, "reorder")
    routes, found = list(rw.nodes("route")), list[_Mixture]()
    is_cut = any(node.op == "all_reduce" or "chunks" in node.attrs for node in graph.nodes)
    for route in routes:
        with rw.attempt(route):
            if is_cut:
                raise NotFired("ranks, or one in their order, add up parts of experts")
            found.append(_match(rw, route))
    if len(found) == len(routes):
        for each in found:
            _join(rw, each)
    elif found:
        rw.refuse([each.route for each in found], "rows of other layers have no expert that can be one of theirs")
    return rw.finish()


@dataclass(frozen=True, slots=True)
class _Expert:
    """Two matrices, and what is done between them, in order from the second back."""

    up: Node
    down: Node
    between: tuple[Node, ...]

    def is_as(self, other: _Expert) -> bool:
        """Whether the same is done to rows as wide."""
        return self._shape() == other._shape()

    def _shape(self) -> list[object]:
        """What is done, and to which results: a gate may be the first half of a row, or the second."""
        made = enumerate((self.up, *self.between))
        places = {value: (i, j) for i, node in made for j, value in enumerate(node.outputs)}
        return [
            places[self.down.inputs["x"]],
            *(
                (
                    node.op,
                    dict(node.attrs),
                    [value.type.dims[1:] for value in node.outputs],
                    {role: places[value] for role, value in node.inputs.items()},
                )
                for node in self.between
            ),
        ]


@dataclass(frozen=True, slots=True)
class _Mixture:
    """Experts and the shared one of a layer.

    Fields:
        gate: of the shared one; None: it counts one. product: that of the gate, and the additions, in order.
        residual: what both are added to; None: one is added to the other.
    """

    route: Node
    experts: _Expert
    combine: Node
    shared: _Expert
    gate: Value | None
    behind: tuple[Node, ...]
    residual: Value | None


def _match(rw: Rewriter, route: Node) -> _Mixture:
    """Raises: NotFired."""
    ids, weights = route.outputs
    if "chosen" in route.inputs:
        raise NotFired("a table says which experts a row has")
    combine, readers = rw.sole_user(weights), rw.users(ids)
    if combine.op != "combine" or {*combine.inputs} != {"x", "weights"}:
        raise NotFired(f"{weights} is read by {combine.op}, or pairs count that no expert computes")
    if [node.op for node in readers] != ["expert_linear"] * 2 or combine.inputs["x"] is not readers[1].output:
        raise NotFired(f"{ids} is not read by two matrices of experts, one behind the other")
    up, down = readers
    if up.attrs["num_experts"] != route.inputs["x"].type.dims[1] or "bias" in up.inputs or "bias" in down.inputs:
        raise NotFired("some choices are no experts, or experts have a bias")
    rw.sole_user(down.output)
    experts = _Expert(up, down, _between(rw, up, down))
    for linear in (user for user in rw.users(up.inputs["x"]) if user.op == "linear"):
        shared = _shared(rw, linear)
        if shared is not None and shared.is_as(experts):
            _check_alike(experts, shared)
            return _with_sums(rw, route, experts, combine, shared)
    raise NotFired(f"no linear of {up.inputs['x']} does what experts do")


def _between(rw: Rewriter, up: Node, down: Node) -> tuple[Node, ...]:
    """Raises: NotFired where something else stands there, or reads it."""
    found, front = list[Node](), [down.inputs["x"]]
    while front:
        node = front.pop(0).producer
        if node is up or node in found:
            continue
        if node is None or node.op not in _BETWEEN:
            raise NotFired(f"{'nothing' if node is None else node.op} stands between the matrices of an expert")
        found.append(node)
        front += list(node.inputs.values())
    inside = {*found, down}
    for value in (value for node in (up, *found) for value in node.outputs):
        if rw.is_output(value) or not inside.issuperset(rw.users(value)):
            raise NotFired(f"{value} is read outside of the expert")
    return tuple(found)


def _shared(rw: Rewriter, up: Node) -> _Expert | None:
    """What a linear is the first matrix of; None: of no expert."""
    value, users = up.output, rw.users(up.output)
    while users and users[0].op in _BETWEEN:
        value = users[0].outputs[0]
        users = rw.users(value)
    if len(users) != 1 or users[0].op != "linear":
        return None
    try:
        return _Expert(up, users[0], _between(rw, up, users[0]))
    except NotFired:
        return None


def _check_alike(experts: _Expert, shared: _Expert) -> None:
    """Raises: NotFired where the matrices of one cannot lie behind those of the others."""
    for ours, theirs in ((experts.up, shared.up), (experts.down, shared.down)):
        a, b = ours.inputs["weight"], theirs.inputs["weight"]
        if {*theirs.inputs} != {"x", "weight"} or a.constant is None or b.constant is None:
            raise NotFired(f"{theirs.output} is more than a product with a constant")
        if (a.type.dtype, a.type.dims[1:]) != (b.type.dtype, b.type.dims[1:]):
            raise NotFired(f"{b} is not held as {a} is")
        if int(b.type.dims[0]) * ours.attrs["num_experts"] != int(a.type.dims[0]):
            raise NotFired(f"{b} is not as high as one of {a}")
        if any(each.columns is not None or each.is_altered for each in (a.constant, b.constant)):
            raise NotFired(f"{a} or {b} are not rows as they are stored")


def _with_sums(rw: Rewriter, route: Node, experts: _Expert, combine: Node, shared: _Expert) -> _Mixture:
    """Raises: NotFired where the two are not parts of one sum."""
    y, gate, behind = shared.down.output, None, list[Node]()
    product = rw.sole_user(y)
    if product.op == "gate_rows" and "kind" not in product.attrs:
        gate, y = product.inputs["gate"], product.output
        if gate.type != TensorType("float32", ("T", 1)):
            raise NotFired(f"{gate} is no number of each row")
        behind.append(product)
    first, last = rw.sole_user(combine.output), rw.sole_user(y)
    if first.op != "add" or last.op != "add":
        raise NotFired(f"{combine.output} and {y} are not both added")
    if first is last:
        return _Mixture(route, experts, combine, shared, gate, (*behind, first), None)
    if rw.sole_user(first.output) is not last:
        raise NotFired(f"{combine.output} and {y} are not added to the same")
    residual = first.inputs["y"] if first.inputs["x"] is combine.output else first.inputs["x"]
    return _Mixture(route, experts, combine, shared, gate, (*behind, first, last), residual)


def _join(rw: Rewriter, found: _Mixture) -> None:
    """Where the last of it stood, behind all that any of it reads."""
    route, experts, last = found.route, found.experts, found.behind[-1]
    top_k, count = route.attrs["top_k"] + 1, experts.up.attrs["num_experts"] + 1
    ids, weights = (Value(f"{out.name}s", TensorType(out.type.dtype, ("T", top_k))) for out in route.outputs)
    gate = {} if found.gate is None else {"gate": found.gate}
    attrs = route.attrs | {"top_k": top_k, "shared": True}
    new = [Node("route", route.inputs | gate, attrs, (ids, weights), route.origin)]
    for ours, theirs in ((experts.up, found.shared.up), (experts.down, found.shared.down)):
        weight = rw.add_constant(_joined([ours.inputs["weight"], theirs.inputs["weight"]]))
        inputs, attrs = (
            ours.inputs | {"ids": ids, "weight": weight},
            ours.attrs | {"num_experts": count, "top_k": top_k},
        )
        new.append(Node(ours.op, inputs, attrs, ours.outputs, ours.origin))
        if ours is experts.up:
            new += [
                Node(node.op, dict(node.inputs), dict(node.attrs), node.outputs, node.origin)
                for node in sorted(experts.between, key=rw.graph.nodes.index)
            ]
    total = last.output if found.residual is None else found.combine.output
    inputs = found.combine.inputs | {"weights": weights}
    new.append(Node("combine", inputs, dict(found.combine.attrs), (total,), found.combine.origin))
    if found.residual is not None:
        new.append(Node("add", {"x": found.residual, "y": total}, {}, (last.output,), found.combine.origin))
    both = (experts, found.shared)
    old = [route, found.combine, *found.behind, *(n for each in both for n in (each.up, each.down, *each.between))]
    rw.replace(old, new, at=last)
    rw.saves(found.shared.down.output)


def _joined(weights: Sequence[Value]) -> Value:
    """Experts' matrices, and one behind them."""
    segments = tuple(
        segment for weight in weights if weight.constant is not None for segment in weight.constant.segments
    )
    definition = ConstantDef(segments)
    type_ = TensorType(weights[0].type.dtype, (definition.num_rows, *weights[0].type.dims[1:]))
    return Value(merged_name([weight.name for weight in weights]), type_, constant=definition)
