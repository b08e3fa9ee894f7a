"""A linear whose inputs are cut among ranks, with weights in few bits or of experts: one for each leaf of the tree.

Used by passes/shard.py. Numbers are added leaf by leaf inside one kernel; here a leaf has 8-bit activations of its own,
each row with a scale of its own, so that no leaf depends on what another rank has, and every size gives the same bits.
Of experts a leaf is what a token's experts give of it, weighed and added: ranks then exchange a row for each token, not
one for each of its experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from albireo.compiler.rewrite import made_by
from albireo.dtypes import TOKEN
from albireo.encodings import encoding, is_encoding, plain_encoding
from albireo.graph.node import Node, TensorType, Value

#: Kernels multiply bfloat16 by pairs: a leaf is whole pairs.
PAIR = 2


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


def has_even_leaves(linear: Node, leaves: int) -> bool:
    """Whether the columns of a weight in few bits can be cut into so many leaves, all of as many groups."""
    group, width = _group(linear.inputs["weight"].type.dtype), int(linear.inputs["weight"].type.dims[1])
    return group is None or width % (leaves * group) == 0


def _group(dtype: str) -> int | None:
    """Of weights in few bits as ranks hold them, without nests."""
    return plain_encoding(encoding(dtype)).group


def leaf_bounds(linear: Node, leaves: int) -> tuple[int, ...]:
    """Where leaves of a linear's inputs begin, and the last one's end: whole groups of weights in few bits, else pairs.

    They differ by one of these at most. Where groups are fewer than leaves, half of the leaves or more have none:
    all ranks have as many leaves then, and so make the same calls.
    """
    weight = linear.inputs["weight"].type
    unit, width = (_group(weight.dtype) if has_leaves(linear) else None) or PAIR, int(weight.dims[1])
    units, step = -(-width // unit), 1
    while leaves // step > units:
        step *= 2
    return tuple(min(width, unit * (number // step * units // (leaves // step))) for number in range(leaves + 1))


def leaf_sum(
    linear: Node,
    leaves: range,
    bounds: Sequence[int],
    weight_of: Callable[[int, int, int], Value],
    combine: Node | None = None,
) -> LeafSum:
    """Some leaves of a linear, added as a tree.

    Args:
        leaves: their numbers.
        bounds: where each leaf of the linear begins, and the last one's end.
        weight_of: the columns of the weight that are a leaf, by its number, first and end.
        combine: what adds up the rows of a linear of experts; a leaf is then its sum.
    """
    rounding = made_by(linear.inputs["x"], "cast") if linear.inputs["x"].type.dtype == TOKEN else None
    source = linear.inputs["x"] if rounding is None else rounding.inputs["x"]
    nodes: list[Node] = []

    def add(op: str, inputs: dict[str, Value], attrs: dict[str, object], *outputs: Value) -> None:
        nodes.append(Node(op, inputs, attrs, outputs, linear.origin))

    widths = {i: bounds[i + 1] - bounds[i] for i in leaves if bounds[i + 1] > bounds[i]}
    parts = dict.fromkeys(widths, source)
    if len(widths) > 1:
        for i, width in widths.items():
            dims = (*source.type.dims[:-1], width)
            parts[i] = Value(f"{source.name}l{i - leaves[0]}", TensorType(source.type.dtype, dims))
        add("split", {"x": source}, {"sizes": tuple(widths.values())}, *parts.values())
    kept = ("num_experts", "top_k", "keeps")
    attrs: dict[str, object] = {name: linear.attrs[name] for name in kept if name in linear.attrs}
    sums: list[Value | None] = []
    for i in leaves:
        if i not in widths:
            sums.append(None)
            continue
        x = parts[i]
        if rounding is not None:
            x = Value(f"{x.name}q", TensorType(TOKEN, x.type.dims))
            add("cast", {"x": parts[i]}, {"dtype": TOKEN}, x)
        inputs = {"x": x, "weight": weight_of(i, bounds[i], bounds[i + 1])}
        total = Value(f"{linear.output.name}l{i - leaves[0]}", linear.output.type)
        if combine is None:
            add("linear", inputs, attrs, total)
        else:
            # what experts add to their sums comes once, with the first of them
            once = {"bias": linear.inputs["bias"]} if "bias" in linear.inputs and bounds[i] == 0 else {}
            add("expert_linear", {"x": x, "ids": linear.inputs["ids"], **inputs, **once}, attrs, total)
            pairs, total = total, Value(f"{combine.output.name}l{i - leaves[0]}", combine.output.type)
            add("combine", {"x": pairs, "weights": combine.inputs["weights"]}, {}, total)
        sums.append(total)
    while len(sums) > 1:
        sums = [_added(a, b, add) for a, b in zip(sums[::2], sums[1::2], strict=True)]
    assert sums[0] is not None, "a rank has a leaf at least"
    return LeafSum(tuple(nodes), sums[0], rounding)


def _added(a: Value | None, b: Value | None, add: Callable[..., None]) -> Value | None:
    """Their sum; a leaf that has no inputs is no term of it."""
    if a is None or b is None:
        return a or b
    total = Value(f"{a.name}s", a.type)
    add("add", {"x": a, "y": b}, {}, total)
    return total
