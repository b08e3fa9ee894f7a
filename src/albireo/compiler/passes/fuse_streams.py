"""Residual streams: what a block reads of them, and how they are mixed and written, becomes two kernels and a linear.

The numbers that say so are linears of all streams, normed: the linears are one, of the streams as they are, and its
sums are divided by the root of the mean square afterwards. Source: Xie et al. 2026, Manifold-Constrained
Hyper-Connections.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.compiler.rewrite import NotFired, Rewriter, body_of, made_by, merged_name
from albireo.dtypes import ROW_CODES
from albireo.graph.node import ConstantDef, Graph, Node, TensorType, Value
from albireo.graph.op_types import num_squares
from albireo.graph.report import PassRecord

WHY = "three small linears read the streams once, and what is done to their sums is a program's work, not ten launches'"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_streams", WHY, "reorder")
    for balance in rw.nodes("balance"):
        with rw.attempt(balance):
            _read(rw, balance)
    for written in rw.nodes("add_parts"):
        with rw.attempt(written):
            _mix(rw, written)
    return rw.finish()


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Sums of a linear of the normed streams, times a number. Fields: nodes: they and what comes of them, in order."""

    nodes: tuple[Node, ...]
    scale: Value
    weight: Value
    bias: Value
    out: Value


def _read(rw: Rewriter, balance: Node) -> None:
    """norm -> 3 * (scale_by, linear) -> 2 * sigmoid, balance; and the sum that a block reads, with its norm."""
    norm = _normed(balance.inputs["x"])
    if norm is None:
        raise NotFired("what is balanced is no linear of a norm in float32, times a number")
    streams = norm.inputs["x"]
    numbers = [_numbers(rw, scaled, norm) for scaled in rw.users(norm.output)]
    if len(numbers) != 3 or numbers[2].nodes[-1] is not balance:
        raise NotFired(f"{norm.output} becomes {len(numbers)} kinds of numbers, of which the last are not balanced")
    read, written, mixed = numbers
    total = rw.sole_user(read.out)
    zero = total.inputs["x"].producer
    parts = made_by(zero.inputs["x"], "split") if zero is not None and zero.op == "scale" else None
    if total.op != "add_parts" or total.inputs["y"] is not streams or zero is None or parts is None:
        raise NotFired(f"{read.out} is read by {total.op}, not by a sum of the streams")
    if zero.attrs["factor"] or total.attrs["num_parts"] != 1 or total.inputs.get("coefs") is not read.out:
        raise NotFired(f"{total.output} is not a sum of the streams alone")
    rw.sole_user(zero.output)
    if rw.is_output(norm.output):
        raise NotFired(f"{norm.output} is an output of the graph")
    rows, width = streams.type.dims[0], int(streams.type.dims[-1])
    raw = Value(f"{read.out.name}r", TensorType("float32", (rows, sum(int(n.bias.type.dims[0]) for n in numbers))))
    weight = rw.add_constant(_joined([n.weight for n in numbers]))
    linear = Node("linear", {"x": streams, "weight": weight}, {}, (raw,), norm.origin)
    squares = Value(f"{streams.name}q", TensorType("float32", (rows, num_squares(width))))
    factors = Value(f"{raw.name}n", raw.type)
    pieces = tuple(Value(f"{n.out.name}p", TensorType("float32", (rows, *n.bias.type.dims))) for n in numbers)
    members = [
        Node("squares", {"x": streams}, {}, (squares,), norm.origin),
        Node("row_norm", {"x": raw, "squares": squares}, {"eps": norm.attrs["eps"], "width": width}, (factors,), ""),
        Node("split", {"x": factors}, {"sizes": tuple(int(n.bias.type.dims[0]) for n in numbers)}, pieces, ""),
    ]
    for of, piece in zip(numbers, pieces, strict=True):
        scaled, shifted = (Value(f"{piece.name}{end}", piece.type) for end in "sb")
        members.append(Node("scale_by", {"x": piece, "weight": of.scale}, {}, (scaled,), of.nodes[0].origin))
        members.append(Node("shift", {"x": scaled, "weight": of.bias}, {}, (shifted,), of.nodes[0].origin))
        last = of.nodes[-1]
        members.append(Node(last.op, {"x": shifted}, last.attrs, last.outputs, last.origin))
    members += [parts, zero, total]
    inputs = {"x": streams, "y": raw}
    for of, name in zip(numbers, ("read", "written", "mixed"), strict=True):
        inputs |= {f"{name}_scale": of.scale, f"{name}_bias": of.bias}
    attrs = {"num_parts": width // int(total.output.type.dims[-1]), "eps": norm.attrs["eps"]}
    attrs |= {"plus": total.attrs["plus"], "rounds": balance.attrs["rounds"], "least": balance.attrs["eps"]}
    out, ending = total.output, _ending(rw, total.output)
    if ending:
        members += ending
        out = ending[-1].output
        inputs["gain"] = ending[0].inputs["weight"]
        attrs["norm_eps"] = ending[0].attrs["eps"]
    outputs = (out, written.out, mixed.out)
    body = body_of(members, inputs, outputs)
    fused = Node("fused", inputs, attrs, outputs, norm.origin, body=body, family="read_streams")
    old = [norm, *(node for of in numbers for node in of.nodes), zero, total, *ending]
    if len(rw.users(parts.outputs[0])) == 1:
        old.append(parts)
    # where the first stood: streams are all that they read, and a mixture may stand before the sum
    rw.replace(old, (linear, fused), at="first")


def _normed(x: Value) -> Node | None:
    """The norm of all streams that numbers are made of."""
    linear = made_by(x, "linear")
    scaled = None if linear is None else made_by(linear.inputs["x"], "scale_by")
    norm = None if scaled is None else made_by(scaled.inputs["x"], "rms_norm")
    if norm is None or {*norm.inputs} != {"x"} or norm.attrs["num_heads"] != 1 or "centered" in norm.attrs:
        return None
    return norm


def _numbers(rw: Rewriter, scaled: Node, norm: Node) -> _Numbers:
    """Raises: NotFired."""
    linear = rw.sole_user(scaled.output)
    if (scaled.op, linear.op, norm.output) != ("scale_by", "linear", scaled.inputs["x"]):
        raise NotFired(f"{norm.output} is read by {scaled.op} and {linear.op}")
    if {*linear.inputs} != {"x", "weight", "bias"} or linear.inputs["weight"].type.dtype != "float32":
        raise NotFired(f"{linear.output} is no linear with a bias of float32 weights")
    last = rw.sole_user(linear.output)
    if last.op != "balance" and (last.op, last.attrs.get("kind")) != ("unary", "sigmoid"):
        raise NotFired(f"{linear.output} is read by {last.op}")
    weights = linear.inputs["weight"], linear.inputs["bias"]
    return _Numbers((scaled, linear, last), scaled.inputs["weight"], *weights, last.output)


def _ending(rw: Rewriter, x: Value) -> list[Node]:
    """The norm of what is read, and its rounding, where nobody else reads it."""
    users = rw.users(x)
    if len(users) != 1 or rw.is_output(x) or users[0].op != "rms_norm" or users[0].attrs["num_heads"] != 1:
        return []
    (norm,) = users
    if {*norm.inputs} != {"x", "weight"} or "centered" in norm.attrs:
        return []
    after = rw.users(norm.output)
    cast = after[0] if len(after) == 1 and after[0].op == "cast" and not rw.is_output(norm.output) else None
    return [norm, *([cast] if cast is not None and cast.attrs["dtype"] not in ROW_CODES else [])]


def _mix(rw: Rewriter, written: Node) -> None:
    """What a block made to every stream; and before, where streams are mixed, each a sum of all."""
    coefs = written.inputs.get("coefs")
    factor = None if coefs is None else made_by(coefs, "scale")
    if factor is None or written.attrs["first"] or written.attrs["num_parts"] < 2:
        raise NotFired(f"{written.output} is not written by numbers times a factor")
    rw.sole_user(factor.output)
    x, members = written.inputs["x"], [factor, written]
    roles = {"y": written.inputs["y"], "coefs": factor.inputs["x"]}
    mixed = made_by(x, "add_parts")
    zero = None if mixed is None else made_by(mixed.inputs["x"], "scale")
    if mixed is not None and zero is not None and _is_mixture(mixed, zero) and _is_read_by(rw, x, written):
        rw.sole_user(zero.output)
        members = [zero, mixed, *members]
        roles["matrix"], x = mixed.inputs["coefs"], mixed.inputs["y"]
    attrs = {"num_parts": written.attrs["num_parts"], "plus": written.attrs["plus"], "factor": factor.attrs["factor"]}
    if roles["y"].type.dims[-1] * written.attrs["num_parts"] != x.type.dims[-1]:
        raise NotFired(f"{roles['y']} are several parts")
    rw.fuse(members, "mix_streams", attrs, roles | {"x": x}, written.outputs)


def _is_read_by(rw: Rewriter, x: Value, node: Node) -> bool:
    """Whether nobody else reads x."""
    return rw.users(x) == [node] and not rw.is_output(x)


def _is_mixture(mixed: Node, zero: Node) -> bool:
    """Whether streams are nothing but sums of themselves."""
    of_all = mixed.inputs["y"] is zero.inputs["x"] and "coefs" in mixed.inputs
    return of_all and not zero.attrs["factor"] and not mixed.attrs["first"] and not mixed.attrs["plus"]


def _joined(weights: list[Value]) -> Value:
    """One matrix of the rows of several."""
    segments = tuple(segment for w in weights if w.constant is not None for segment in w.constant.segments)
    definition = ConstantDef(segments)
    type_ = TensorType("float32", (definition.num_rows, *weights[0].type.dims[1:]))
    return Value(merged_name([w.name for w in weights]), type_, constant=definition)
