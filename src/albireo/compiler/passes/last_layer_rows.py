"""Take the rows that leave the model behind the last attention, not before the head: what lies between works by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "no row looks at another behind the last attention, so only rows that get logits go on, of a prompt usually one"

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
)
#: Of these, the ones a kernel may end with. Elsewhere a cut would part what one kernel does; and parts of a sum are
#: taken by a call each.
ENDS = ("add", "cast", "scale_by")
#: Rows that leave the model -> where each is among all that do.
POSITIONS = {"logit_rows": "logit_pos", "top_rows": "top_pos"}


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "last_layer_rows", WHY, "exact")
    leaving: dict[Value, list[Node]] = {}
    for gather in rw.nodes("gather_rows"):
        if gather.inputs["rows"].name in POSITIONS:
            leaving.setdefault(gather.inputs["x"], []).append(gather)
    for gathers in leaving.values():
        with rw.attempt(*gathers):
            region = _region(rw, gathers)
            _check_cut(rw, region, gathers)
            _move(rw, region, gathers)
    return rw.finish()


def _region(rw: Rewriter, gathers: Sequence[Node]) -> list[Node]:
    """Ops all of whose results go to these gathers and nowhere else, in order."""
    inside = set(gathers)
    for node in reversed(rw.graph.nodes):
        users = [user for value in node.outputs for user in rw.users(value)]
        if _is_row_wise(node) and users and inside.issuperset(users) and not any(map(rw.is_output, node.outputs)):
            inside.add(node)
    # The rounding of another op's result stays with that op: one kernel does both, and half the bytes are copied.
    roundings = {node for node in inside if node.op == "cast" and node.inputs["x"].producer not in inside}
    moving = inside - roundings - set(gathers)
    return [node for node in rw.graph.nodes if node in moving]


def _is_row_wise(node: Node) -> bool:
    return node.op in ROW_WISE and all(role in ("x", "y") or v.is_constant for role, v in node.inputs.items())


def _entering(region: Iterable[Node]) -> list[Value]:
    """Activations that the region reads and does not make, each once."""
    inside = set(region)
    read = (v for node in region for role, v in node.inputs.items() if role in ("x", "y"))
    return list(dict.fromkeys(v for v in read if v.producer not in inside))


def _check_cut(rw: Rewriter, region: Sequence[Node], gathers: Sequence[Node]) -> None:
    """Raises: NotFired when the rows cannot be taken between two kernels, or when no linear lies behind."""
    if any(value.producer is not None and value.producer.op == "combine" for value in _entering(region)):
        raise NotFired("pairs are those of all tokens; what a shared expert would save is less than three copies cost")
    is_useful = any(node.op == "linear" for node in region)
    inside = {*region, *gathers}
    for value in reversed(_entering([*region, *gathers])):
        node = value.producer
        if is_useful and (node is None or _may_end(node)):
            continue
        results = node.outputs if node is not None else (value,)
        others = [user.op for v in results for user in rw.users(v) if user not in inside]
        others += ["an output" for v in results if rw.is_output(v)]
        if others:
            raise NotFired(f"{value} is needed for all rows, by {others[0]}")
    if not is_useful:
        raise NotFired("no linear lies between the last op across rows and the rows taken")


def _may_end(node: Node) -> bool:
    """Whether a kernel may end with an op."""
    source = node.inputs["x"].producer if node.op == "split" else None
    return node.op not in ROW_WISE or node.op in ENDS or (source is not None and source.op == "add")


def _move(rw: Rewriter, region: Sequence[Node], gathers: Sequence[Node]) -> None:
    """gather(f(a, b)) -> gather(f(gather(a), gather(b))): the inner gathers take the rows of all outer ones."""
    out_rows, origin = rw.step_array("out_rows"), region[0].origin
    moved = {value: _rows_of(value, f"{value.name}s") for value in _entering(region)}
    new = [Node("gather_rows", {"x": x, "rows": out_rows}, {}, (rows,), origin) for x, rows in moved.items()]
    for node in region:
        moved |= {value: _rows_of(value, value.name) for value in node.outputs}
        new.append(_with_inputs(node, moved, tuple(moved[value] for value in node.outputs)))
    for gather in gathers:
        rows = gather.inputs["rows"]
        moved[rows] = rw.step_array(POSITIONS[rows.name])
        new.append(_with_inputs(gather, moved, gather.outputs))
    rw.saves(*(value for node in region if node.op != "split" for value in node.outputs))
    rw.replace([*region, *gathers], new, at=region[-1])
    weights = [node.inputs["weight"].type.dims for node in region if node.op == "linear"]
    rw.record.notes.append(f"{sum(int(n) * int(k) for n, k in weights):,} weights multiply these rows only")


def _with_inputs(node: Node, moved: dict[Value, Value], outputs: tuple[Value, ...]) -> Node:
    inputs = {role: moved.get(value, value) for role, value in node.inputs.items()}
    return Node(node.op, inputs, dict(node.attrs), outputs, node.origin)


def _rows_of(value: Value, name: str) -> Value:
    return Value(name, TensorType(value.type.dtype, ("S", *value.type.dims[1:])))
