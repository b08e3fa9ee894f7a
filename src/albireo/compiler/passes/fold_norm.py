"""A norm goes into the linears around it, where a backend's kernels can: it is no call any more.

What a row is divided by is known when all of it is. So the linear that makes the row (and adds the residual), or the
combine of a mixture of experts, also gives it times the norm's weight, rounded, and sums of squares of each SQUARES
columns; the linears that read the norm multiply that, and divide their sums by the root of the mean. Rounding to the
compute type comes before the division, not behind. To rows of e4m3, too: their scales are of groups, which whoever
makes the row has whole. What a linear makes without a residual, as latents of queries are, is such a row, too. Among
ranks the sum of their parts makes a row. Of weights in few bits one rank has no node that does: norms stay what they
are there, so that every number of ranks has the same bits. Where a step's rows are added to what such a linear makes,
that sum gives these: so a row has the bits that it has in the program that adds none.
"""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, body_of, copy_graph
from albireo.dtypes import FP8_TOKEN
from albireo.encodings import is_encoding
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.op_types import num_squares
from albireo.graph.report import PassRecord

WHY = "a launch less, and a reading of the row: it is in registers where it is made"
#: float16 would overflow before the division, and a scale of a whole row is known too late.
_TYPES = ("bfloat16", FP8_TOKEN)


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fold_norm", WHY, "reorder")
    for norm in rw.nodes("fused"):
        if norm.family == "norm":
            with rw.attempt(norm):
                _fold(rw, norm)
    return rw.finish()


def _fold(rw: Rewriter, norm: Node) -> None:
    x, h = norm.inputs["x"], norm.output
    made, users = x.producer, rw.users(h)
    if norm.attrs.get("centered", False) or set(norm.inputs) - {"rows"} != {"x", "weight"}:
        raise NotFired("it subtracts the mean, or is no product with a weight: linears divide by a root alone")
    if h.type.dtype not in _TYPES or "rows" in norm.inputs:
        raise NotFired(f"{h} is {h.type.dtype}, of {'picked' if 'rows' in norm.inputs else 'all'} rows of {x}")
    first = made.inputs["x"].producer if made is not None and made.op == "add_given" else made
    if first is None or not _can_give_parts(first):
        raise NotFired(
            f"{x} is not made by a linear of {' or '.join(_TYPES)}, or, with a residual, by the sum of ranks' parts of "
            "one or by a combine"
        )
    if h.type.dtype == FP8_TOKEN != first.inputs["x"].type.dtype and first.family == "linear":
        raise NotFired(f"{h} is {h.type.dtype}, and what makes {x} reads {first.inputs['x'].type.dtype}")
    assert made is not None, "there is what makes it"
    for user in users:
        readers = [role for role, value in user.inputs.items() if value is h]
        is_product = user.family in ("linear", "qkv_rope_kv", "expert_linear") or user.op == "adapter"
        if not is_product or readers != ["x"] or not _is_able(user):
            raise NotFired(f"{user.family or user.op} {', '.join(map(str, user.outputs))} reads it")
        if "v_weight" in user.inputs:
            raise NotFired("v has a linear of its own")
    if not users or rw.is_output(h):
        raise NotFired(f"{h} is an output")
    scaled, squares = _give_parts(rw, made, norm)
    for user in users:
        if user.op == "adapter":  # what it gives is divided with the sums that it is added to
            rw.replace((user,), (Node("adapter", user.inputs | {"x": scaled}, user.attrs, user.outputs, user.origin),))
            continue
        inputs = user.inputs | {"x": scaled, "squares": squares}
        attrs = user.attrs | {"norm_eps": norm.attrs["eps"]}
        body = _divided(user, squares, float(norm.attrs["eps"]), int(x.type.dims[1]))
        rw.replace((user,), (Node("fused", inputs, attrs, user.outputs, user.origin, body=body, family=user.family),))
    rw.saves(h)
    rw.drop(norm)


def _can_give_parts(node: Node) -> bool:
    if node.family == "linear" and "residual" not in node.inputs:  # a latent that others are made of
        is_plain = node.attrs["act"] == "none" and node.output.type.dtype == "float32" and "chunks" not in node.attrs
        return is_plain and node.inputs["x"].type.dtype in _TYPES
    if "residual" not in node.inputs:
        return False
    if node.family == "all_reduce":
        part = node.inputs["x"].producer
        return part is not None and part.family == "linear" and not is_encoding(part.inputs["weight"].type.dtype)
    return node.family == "combine" or (node.family == "linear" and node.inputs["x"].type.dtype in _TYPES)


def _is_able(node: Node) -> bool:
    return node.inputs["x"].type.dtype in _TYPES and "chunks" not in node.attrs


def _give_parts(rw: Rewriter, made: Node, norm: Node) -> tuple[Value, Value]:
    """Let what makes a row give what the norm is made of, too: the row times the weight, and squares."""
    x, gain = norm.inputs["x"], norm.inputs["weight"]
    rows, cols = x.type.dims
    gained = Value(f"{x.name}g", TensorType("float32", x.type.dims))
    scaled = Value(f"{norm.output.name}g", TensorType(norm.output.type.dtype, x.type.dims))
    squares = Value(f"{x.name}q", TensorType("float32", (rows, num_squares(int(cols)))))
    members = [
        made,
        Node("gain", {"x": x, "weight": gain}, {}, (gained,), norm.origin),
        Node("cast", {"x": gained}, {"dtype": norm.output.type.dtype}, (scaled,), norm.origin),
        Node("squares", {"x": x}, {}, (squares,), norm.origin),
    ]
    # squares are what it gives: those of the rows that it reads have another name
    inputs = {"row_squares" if role == "squares" else role: value for role, value in made.inputs.items()}
    inputs, outputs = inputs | {"gain": gain}, (x, scaled, squares)
    body = body_of(members, inputs, outputs)
    family = f"{made.family or made.op}_norm"
    rw.replace((made,), (Node("fused", inputs, dict(made.attrs), outputs, made.origin, body=body, family=family),))
    return scaled, squares


def _divided(user: Node, squares: Value, eps: float, width: int) -> Graph:
    """A linear's body, its product divided by what a row's squares say; then comes its bias."""
    assert user.body is not None
    body = copy_graph(user.body)
    role = body.inputs["squares"] = Value("squares", squares.type)
    nodes: list[Node] = []
    for node in body.nodes:
        nodes.append(node)
        if node.op in ("linear", "expert_linear"):
            y, raw = node.output, Value(f"{node.output.name}r", node.output.type, node)
            inputs = {"x": raw, "squares": role}
            if "bias" in node.inputs:  # of experts each row has its own
                inputs |= {name: v for name, v in node.inputs.items() if name in ("bias", "ids")}
            node.outputs, node.inputs = (raw,), {name: v for name, v in node.inputs.items() if name != "bias"}
            y.producer = Node("row_norm", inputs, {"eps": eps, "width": width}, (y,), node.origin)
            nodes.append(y.producer)
    body.nodes = nodes
    return body
