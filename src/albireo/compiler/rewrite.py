"""Rewriter: what every pass uses to look at a graph, replace ops in it, and keep the record of both.

Used by passes/. A replacement keeps the output values of what it replaces, so users need no change and a value has
one name from the first pass to the last. Does not know families, kernels or models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from albireo.dtypes import itemsize
from albireo.graph.node import ConstantDef, Graph, Node, RowSegment, TensorType, Value
from albireo.graph.program_spec import STEP_ARRAYS
from albireo.graph.report import Firing, Numerics, PassRecord, Refusal


class NotFired(Exception):
    """A pattern nearly matched; the message says what was in the way."""


class Rewriter:
    """One pass over one graph, changed in place by finish().

    Invariants:
    1. users() and nodes() see the graph as rewritten so far.
    2. A replacement stands where one of the replaced nodes stood: the last, unless told otherwise.
    """

    def __init__(self, graph: Graph, name: str, why: str, numerics: Numerics) -> None:
        self.graph = graph
        self.record = PassRecord(name, why, numerics, ops_before=len(graph.nodes))
        # value -> nodes that read it, as often as they do. None until somebody asks: most passes find nothing to ask
        # about.
        self._users: dict[Value, list[Node]] | None = None
        self._new: list[Node] = []
        self._outputs = set(graph.outputs.values())
        self._position = {node: i for i, node in enumerate(graph.nodes)}
        self._dead: set[Node] = set()
        self._placed: dict[Node, list[Node]] = {}

    def nodes(self, op: str) -> Iterator[Node]:
        """Nodes of one op that were there at the start and still are, in order."""
        for node in self.graph.nodes:
            if node.op == op and node not in self._dead:
                yield node

    def users(self, value: Value) -> list[Node]:
        """Nodes that read value, each once."""
        found = self._readers().get(value, ())
        if len(found) > 1:
            return [node for node in dict.fromkeys(found) if node not in self._dead]
        return [node for node in found if node not in self._dead]

    def is_alive(self, node: Node) -> bool:
        return node not in self._dead

    def is_output(self, value: Value) -> bool:
        return value in self._outputs

    def sole_user(self, value: Value) -> Node:
        """The one node that reads value. Raises: NotFired when there are others, or the graph hands it out."""
        users = self.users(value)
        if value in self._outputs:
            raise NotFired(f"{value} is an output of the graph")
        if len(users) != 1:
            raise NotFired(f"{value} has {len(users)} users")
        return users[0]

    def only(self, value: Value, op: str) -> Node | None:
        """The node that reads value, if it is alone and an op of this name; None when another op reads it.

        Raises: NotFired when an op of this name reads it, but not alone.
        """
        users = self.users(value)
        if not any(node.op == op for node in users):
            return None
        return self.sole_user(value)

    @contextmanager
    def attempt(self, *nodes: Node) -> Iterator[None]:
        """A NotFired raised inside becomes a line of the report about these nodes."""
        try:
            yield
        except NotFired as refusal:
            self.refuse(nodes, str(refusal))

    def refuse(self, nodes: Sequence[Node], reason: str) -> None:
        self.record.refusals.append(Refusal(tuple(label(node) for node in nodes), reason))

    def replace(self, old: Sequence[Node], new: Sequence[Node], at: Literal["first", "last"] | Node = "last") -> None:
        """Put new where the first or last or a given one of old stood.

        Outputs of new that old defined keep their users.
        """
        old = sorted(old, key=self._position.__getitem__)
        anchor = old[0] if at == "first" else old[-1] if at == "last" else at
        self._dead.update(old)
        for node in new:
            for value in node.outputs:
                value.producer = node
            self._add_user(node)
            self._position[node] = self._position[anchor]
        self._placed[anchor] = list(new)
        self.record.firings.append(Firing(old[-1].origin, tuple(map(str, old)), tuple(map(str, new))))

    def insert(self, node: Node, behind: Node) -> Node:
        """Put a new node behind one that is there."""
        for value in node.outputs:
            value.producer = node
        self._add_user(node)
        self._position[node] = self._position[behind]
        self._placed.setdefault(behind, []).append(node)
        return node

    def fuse(
        self,
        members: Sequence[Node],
        family: str,
        attrs: dict[str, Any],
        roles: Mapping[str, Value | None],
        outputs: tuple[Value, ...],
    ) -> Node:
        """Replace members by one fused node whose body they become.

        roles: what the fused node reads, absent ones None; outputs: the members' values others go on reading.
        """
        inputs = {role: value for role, value in roles.items() if value is not None}
        members = sorted(members, key=self._position.__getitem__)
        body = body_of(members, inputs, outputs)
        node = Node("fused", inputs, attrs, outputs, origin=members[0].origin, body=body, family=family)
        # the parts of a split are views: nothing is moved for them
        self.saves(*(v for m in members if m.op != "split" for v in m.outputs if v not in outputs))
        self.replace(members, (node,))
        return node

    def bypass(self, node: Node, value: Value) -> None:
        """Drop a node whose output equals value: users of the output read value instead."""
        output = node.output
        for user in self.users(output):
            user.inputs = {role: value if v is output else v for role, v in user.inputs.items()}
            self._readers().setdefault(value, []).append(user)
        for name, out in self.graph.outputs.items():
            if out is output:
                self.graph.outputs[name] = value
                self._outputs.add(value)
        self._dead.add(node)
        self.record.firings.append(Firing(node.origin, (str(node),), ()))

    def drop(self, node: Node) -> None:
        """Drop a node nobody reads."""
        self._dead.add(node)
        self.record.firings.append(Firing(node.origin, (str(node),), ()))

    def add_constant(self, value: Value) -> Value:
        """Register a constant under its name; the same one made twice is one."""
        return self.graph.constants.setdefault(value.name, value)

    def step_array(self, name: str) -> Value:
        """The graph's input of this name, made when it is not there yet."""
        symbol, _ = STEP_ARRAYS[name]
        return self.graph.inputs.setdefault(name, Value(name, TensorType("int32", (symbol,))))

    def saves(self, *values: Value) -> None:
        """Count values that are no longer written and read back."""
        for value in values:
            self.saves_bytes(value.type, 2)

    def saves_bytes(self, type_: TensorType, times: int) -> None:
        """Count times passes over a value of this type that no longer happen."""
        symbol, *dims = type_.dims
        size = times * itemsize(type_.dtype)
        for dim in dims:
            size *= int(dim)
        saved = self.record.saved_bytes
        saved[str(symbol)] = saved.get(str(symbol), 0) + size

    def finish(self) -> PassRecord:
        """Write the rewritten order back into the graph."""
        if self._dead or self._placed:
            old = self.graph.nodes
            self.graph.nodes = []
            self._order(old, self.graph.nodes)
            self.graph.drop_unused_constants()
        self.record.ops_after = len(self.graph.nodes)
        return self.record

    def _order(self, nodes: Sequence[Node], into: list[Node]) -> None:
        dead, placed = self._dead, self._placed
        for node in nodes:
            if node not in dead:
                into.append(node)
            if node in placed:
                self._order(placed[node], into)

    def _readers(self) -> dict[Value, list[Node]]:
        if self._users is None:
            self._users = {}
            for node in (*self.graph.nodes, *self._new):
                self._add_user(node)
        return self._users

    def _add_user(self, node: Node) -> None:
        if self._users is None:
            self._new.append(node)
            return
        users = self._users
        for value in node.inputs.values():
            if value in users:
                users[value].append(node)
            else:
                users[value] = [node]


def label(node: Node) -> str:
    """How reports and errors name a node: layers.3.attn: add %31."""
    name = node.family if node.op == "fused" else node.op
    return f"{node.origin or 'graph'}: {name} {', '.join(map(str, node.outputs))}"


def linear_roles(linear: Node) -> dict[str, Value | None]:
    """Roles every fused node made from a linear starts with."""
    found = {"x": linear.inputs["x"], "weight": linear.inputs["weight"], "bias": linear.inputs.get("bias")}
    return found | {role: linear.inputs.get(role) for role in ("low", "slots")}


def adapter_attrs(linear: Node) -> dict[str, Any]:
    """Attributes every fused node made from a linear has of that one's adapters."""
    return {name: linear.attrs[name] for name in ("modules", "module_rows", "module_inputs") if name in linear.attrs}


def norm_attrs(norm: Node) -> dict[str, Any]:
    """Attributes of the family norm that a norm of whole rows becomes."""
    return {name: norm.attrs[name] for name in ("eps", "centered") if name in norm.attrs}


def made_by(value: Value, op: str) -> Node | None:
    """The node that makes value, if it is an op of this name."""
    node = value.producer
    return node if node is not None and node.op == op else None


def merge_linears(rw: Rewriter, linears: Sequence[Node], role: str | None = None) -> None:
    """Replace linears of one input by one linear over their weights' rows, of that role, and a split.

    Raises: NotFired when they do not read the same input or their weights differ in type.
    """
    if len({linear.inputs["x"] for linear in linears}) != 1:
        raise NotFired("the linears do not read the same input")
    weights = [linear.inputs["weight"] for linear in linears]
    if any("chunks" in n.attrs for n in linears) or any(w.constant and w.constant.columns for w in weights):
        raise NotFired("what they add is summed as a tree, in parts of ranks")
    if len({(w.type.dtype, w.type.dims[1]) for w in weights}) != 1 or not all(w.is_constant for w in weights):
        raise NotFired(f"weights differ in type: {', '.join(str(w.type) for w in weights)}")
    sizes = tuple(int(w.type.dims[0]) for w in weights)
    inputs = {"x": linears[0].inputs["x"], "weight": rw.add_constant(_concat(weights))}
    present = [linear.inputs["bias"] for linear in linears if "bias" in linear.inputs]
    if present:
        biases = [linear.inputs.get("bias") or _zeros(present[0], linear.inputs["weight"]) for linear in linears]
        inputs["bias"] = rw.add_constant(_concat(biases))
    parts = tuple(linear.output for linear in linears)
    merged = Value(f"{parts[0].name}m", TensorType("float32", (*parts[0].type.dims[:-1], sum(sizes))))
    attrs = {} if role is None else {"role": role}
    linear = Node("linear", inputs, attrs, (merged,), origin=_common_origin([n.origin for n in linears]))
    split = Node("split", {"x": merged}, {"sizes": sizes}, parts, origin=linear.origin)
    rw.saves_bytes(inputs["x"].type, len(linears) - 1)
    rw.replace(linears, (linear, split), at="first")


def copy_graph(graph: Graph) -> Graph:
    """An independent copy; a body and attribute values are shared, since passes never change them."""
    env = {value: Value(value.name, value.type, None, value.constant) for value in _roots(graph)}
    copy = Graph({k: env[v] for k, v in graph.inputs.items()}, {k: env[v] for k, v in graph.constants.items()})
    for node in graph.nodes:
        copy.nodes.append(_clone(node, env))
    copy.outputs = {name: env[value] for name, value in graph.outputs.items()}
    return copy


def _roots(graph: Graph) -> Iterator[Value]:
    yield from graph.inputs.values()
    yield from graph.constants.values()


def _clone(node: Node, env: dict[Value, Value]) -> Node:
    """A copy of node reading env's values; its outputs are added to env."""
    inputs = {role: env[value] for role, value in node.inputs.items()}
    clone = Node(node.op, inputs, dict(node.attrs), (), node.origin, node.body, node.family)
    clone.outputs = tuple(Value(v.name, v.type, clone) for v in node.outputs)
    env.update(zip(node.outputs, clone.outputs, strict=True))
    return clone


def body_of(members: Sequence[Node], inputs: Mapping[str, Value], outputs: tuple[Value, ...]) -> Graph:
    """The graph a fused node stands for: members over its roles."""
    body = Graph({role: Value(role, value.type) for role, value in inputs.items()})
    env = {value: body.inputs[role] for role, value in inputs.items()}
    for member in members:
        if member.body is None:
            body.nodes.append(_clone(member, env))
            continue
        inner = {value: env[member.inputs[role]] for role, value in member.body.inputs.items()}
        body.nodes.extend(_clone(node, inner) for node in member.body.nodes)
        env.update((out, inner[v]) for out, v in zip(member.outputs, member.body.outputs.values(), strict=True))
    body.outputs = {v.name: env[v] for v in outputs}
    return body


def _concat(values: Sequence[Value]) -> Value:
    """One constant of the rows of several."""
    segments = tuple(s for v in values if v.constant is not None for s in v.constant.segments)
    definition = ConstantDef(segments)
    first = values[0].type
    name = merged_name([v.name for v in values])
    return Value(name, TensorType(first.dtype, (definition.num_rows, *first.dims[1:])), constant=definition)


def _zeros(like: Value, weight: Value) -> Value:
    """The bias that a weight does not have, named as if it had."""
    rows = int(weight.type.dims[0])
    name = ".".join([*weight.name.split(".")[:-1], like.name.split(".")[-1]])
    return Value(name, TensorType(like.type.dtype, (rows,)), constant=ConstantDef((RowSegment(None, 0, rows),)))


def merged_name(names: Sequence[str]) -> str:
    """a.q_proj.weight, a.k_proj.weight -> a.q_proj+k_proj.weight."""
    parts = [name.split(".") for name in names]
    if len({len(p) for p in parts}) != 1:
        return "+".join(names)
    columns = (list(dict.fromkeys(column)) for column in zip(*parts, strict=True))
    return ".".join("+".join(column) for column in columns)


def _common_origin(origins: Sequence[str]) -> str:
    """layers.0.attn.q, layers.0.attn.k -> layers.0.attn."""
    common = []
    for column in zip(*(origin.split(".") for origin in origins), strict=False):
        if len(set(column)) != 1:
            break
        common.append(column[0])
    return ".".join(common)
