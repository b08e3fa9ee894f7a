"""The ops between a place where the rows that leave the model are taken and one in front of it, where they could be.

Used by passes/last_layer_rows.py and passes/rows_of_sharing_layers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import Node, TensorType, Value

#: Ops whose row i depends on row i of their activations alone.
ROW_WISE = (
    "cast",
    "rms_norm",
    "linear",
    "head_linear",
    "all_reduce",
    "split",
    "add",
    "mul",
    "unary",
    "scale",
    "scale_by",
    "xielu",
    "clip",
    "gain",
    "add_parts",
    "match_length",
    "cut",
    "balance",
    "join_sums",
)
#: Roles in which they read activations.
_ACTIVATIONS = ("x", "y", "coefs")
#: Of these, the ones a kernel may end with. Elsewhere a cut would part what one kernel does; and parts of a sum are
#: taken by a call each.
ENDS = ("add", "cast", "scale_by", "add_parts", "match_length")


def is_row_wise(node: Node) -> bool:
    return node.op in ROW_WISE and all(role in _ACTIVATIONS or v.is_constant for role, v in node.inputs.items())


def leading_to(rw: Rewriter, gathers: Sequence[Node], may_move: Callable[[Node], bool]) -> list[Node]:
    """Ops that may move, all of whose results go to these gathers and nowhere else, in order."""
    inside, taken = set[Node](), set(gathers)
    for node in reversed(rw.graph.nodes):
        users = [user for value in node.outputs for user in rw.users(value)]
        is_needed = any(map(rw.is_output, node.outputs))
        if users and not is_needed and (inside | taken).issuperset(users) and may_move(node):
            inside.add(node)
    # The rounding of another op's result stays with that op: one kernel does both, and half the bytes are copied.
    moving = {node for node in inside if node.op != "cast" or node.inputs["x"].producer in inside}
    return [node for node in rw.graph.nodes if node in moving]


def entering(region: Iterable[Node]) -> list[Value]:
    """Activations that the region reads and does not make, each once."""
    inside = set(region)
    read = (v for node in region for role, v in node.inputs.items() if role in (*_ACTIVATIONS, "q"))
    return list(dict.fromkeys(v for v in read if v.producer not in inside))


def check_ends(rw: Rewriter, values: Sequence[Value], region: Iterable[Node], *, is_useful: bool = True) -> None:
    """Raises: NotFired when the rows of a value cannot be taken between two kernels."""
    inside = set(region)
    for value in reversed(values):
        node = value.producer
        if is_useful and (node is None or _may_end(node)):
            continue
        results = node.outputs if node is not None else (value,)
        others = [user.op for v in results for user in rw.users(v) if user not in inside]
        others += ["an output" for v in results if rw.is_output(v)]
        if others:
            raise NotFired(f"{value} is needed for all rows, by {others[0]}")


def rows_of(value: Value, name: str) -> Value:
    """The rows of it that leave the model."""
    return Value(name, TensorType(value.type.dtype, ("S", *value.type.dims[1:])))


def with_inputs(node: Node, moved: dict[Value, Value], outputs: tuple[Value, ...]) -> Node:
    inputs = {role: moved.get(value, value) for role, value in node.inputs.items()}
    return Node(node.op, inputs, dict(node.attrs), outputs, node.origin)


def weights_note(region: Iterable[Node]) -> str:
    """What a report says of the linears of a region."""
    weights = [node.inputs["weight"].type.dims for node in region if node.op == "linear"]
    return f"{sum(int(n) * int(k) for n, k in weights):,} weights multiply these rows only"


def _may_end(node: Node) -> bool:
    """Whether a kernel may end with an op."""
    source = node.inputs["x"].producer if node.op == "split" else None
    return node.op not in ROW_WISE or node.op in ENDS or (source is not None and source.op == "add")
