"""A linear whose inputs are cut among ranks, with weights in few bits: a linear for each leaf of the tree of sums.

Used by passes/shard.py. Numbers are added leaf by leaf inside one kernel; here a leaf has 8-bit activations of its own,
each row with a scale of its own, so that no leaf depends on what another rank has, and every size gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from albireo.compiler.rewrite import made_by
from albireo.dtypes import TOKEN
from albireo.encodings import encoding, is_encoding
from albireo.graph.node import Node, TensorType, Value


@dataclass(frozen=True, slots=True)
class LeafSum:
    """What takes the place of a linear: nodes, in order, the last of which makes total.

    Fields: unused: the rounding of all inputs together, which nobody else may read.
    """

    nodes: tuple[Node, ...]
    total: Value
    unused: Node | None


def has_leaves(linear: Node) -> bool:
    """Whether the weight of a linear is in few bits."""
    return is_encoding(linear.inputs["weight"].type.dtype)


def leaf_problem(linear: Node, leaves: int) -> str:
    """Why the columns of a weight in few bits cannot be cut into so many leaves; "" when they can."""
    e, width = encoding(linear.inputs["weight"].type.dtype), int(linear.inputs["weight"].type.dims[1])
    if e.group is None or width % (leaves * e.group) == 0:
        return ""
    return (
        f"{linear.origin} adds {width} products of {e}, and a leaf of {width / leaves:g}, an eighth of them, is no "
        f"multiple of {e.group}"
    )


def leaf_sum(linear: Node, first: int, count: int, weight_of: Callable[[int], Value]) -> LeafSum:
    """Leaves first .. first + count of a linear, added as a tree.

    Args: weight_of: the columns of the weight that are a leaf, by its number.
    """
    rounding = made_by(linear.inputs["x"], "cast") if linear.inputs["x"].type.dtype == TOKEN else None
    source = linear.inputs["x"] if rounding is None else rounding.inputs["x"]
    nodes: list[Node] = []

    def add(op: str, inputs: dict[str, Value], attrs: dict[str, object], *outputs: Value) -> None:
        nodes.append(Node(op, inputs, attrs, outputs, linear.origin))

    width = int(source.type.dims[-1]) // count
    parts: tuple[Value, ...] = (source,)
    if count > 1:
        dims = (*source.type.dims[:-1], width)
        parts = tuple(Value(f"{source.name}l{i}", TensorType(source.type.dtype, dims)) for i in range(count))
        add("split", {"x": source}, {"sizes": (width,) * count}, *parts)
    sums = []
    for i, part in enumerate(parts):
        x = part
        if rounding is not None:
            x = Value(f"{part.name}q", TensorType(TOKEN, part.type.dims))
            add("cast", {"x": part}, {"dtype": TOKEN}, x)
        sums.append(Value(f"{linear.output.name}l{i}", linear.output.type))
        add("linear", {"x": x, "weight": weight_of(first + i)}, {}, sums[-1])
    while len(sums) > 1:
        pairs = [(sums[i], sums[i + 1]) for i in range(0, len(sums), 2)]
        sums = [Value(f"{a.name}s", a.type) for a, _ in pairs]
        for (a, b), total in zip(pairs, sums, strict=True):
            add("add", {"x": a, "y": b}, {}, total)
    return LeafSum(tuple(nodes), sums[0], rounding)
