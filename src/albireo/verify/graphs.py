"""The graph of a directory against the one its checkpoint means: the same nodes, numbers and constants.

Called by run.py. Nothing is computed. Does not know files.
"""

from __future__ import annotations

from itertools import zip_longest

from albireo.graph.node import Graph, Node, Value


def graph_difference(seen: Graph, wanted: Graph) -> str:
    """The first difference, naming the node; empty when there is none. Names of values do not matter."""
    same: dict[Value, Value] = {}
    for name, value in wanted.inputs.items():
        if name not in seen.inputs:
            return f"there is no input {name}"
        same[value] = seen.inputs[name]
    for ours, right in zip_longest(seen.nodes, wanted.nodes):
        if ours is None or right is None:
            place = _name(ours or right)
            return f"{place}: the graph has {len(seen.nodes)} nodes, the checkpoint's {len(wanted.nodes)}"
        problem = _node_difference(ours, right, same)
        if problem:
            return f"{_name(right)}: {problem}"
        same.update(zip(right.outputs, ours.outputs, strict=True))
    for name, value in wanted.outputs.items():
        if seen.outputs.get(name) is not same[value]:
            return f"output {name} is another value"
    return ""


def _node_difference(ours: Node, right: Node, same: dict[Value, Value]) -> str:
    if (ours.op, ours.origin) != (right.op, right.origin):
        return f"is {ours.op} of {ours.origin or 'nowhere'}, the checkpoint's is {right.op}"
    for key in sorted({*ours.attrs, *right.attrs}):
        if ours.attrs.get(key) != right.attrs.get(key):
            return f"{key} is {_short(ours.attrs.get(key))}, the checkpoint's is {_short(right.attrs.get(key))}"
    if set(ours.inputs) != set(right.inputs):
        return f"has inputs {sorted(ours.inputs)}, the checkpoint's {sorted(right.inputs)}"
    for role, value in right.inputs.items():
        given = ours.inputs[role]
        if value.is_constant:
            if (given.constant, given.type) != (value.constant, value.type):
                return f"{role} is {_constant(given)}, the checkpoint's is {_constant(value)}"
        elif given is not same[value]:
            return f"{role} is {given}, the checkpoint's is {value}"
    if [value.type for value in ours.outputs] != [value.type for value in right.outputs]:
        types = ["; ".join(str(value.type) for value in node.outputs) for node in (ours, right)]
        return f"gives {types[0]}, the checkpoint's {types[1]}"
    return ""


def _name(node: Node | None) -> str:
    return "graph" if node is None else f"{node.origin or 'graph'} ({node.op})"


def _constant(value: Value) -> str:
    sources = ", ".join(value.constant.sources) if value.constant is not None else str(value)
    return f"{value.type} of {_short(sources)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
