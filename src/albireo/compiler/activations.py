"""What a linear multiplies, rounded to another type: once for all that read it so.

Called by the passes that decide how matrices in few bits are multiplied.
"""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter, made_by
from albireo.dtypes import FP8_TOKEN, ROW_CODES
from albireo.graph.node import Node, TensorType, Value

#: (value, type) -> that value rounded to that type.
Casts = dict[tuple[Value, str], Value]


def read_rounded(rw: Rewriter, linear: Node, dtype: str, casts: Casts) -> None:
    """Let a linear read its input rounded to dtype."""
    x = _rounded(rw, linear.inputs["x"], dtype, casts)
    new = Node(linear.op, linear.inputs | {"x": x}, dict(linear.attrs), linear.outputs, linear.origin)
    rw.replace((linear,), (new,))


def drop_unread(rw: Rewriter) -> None:
    """Casts and gathers that nobody reads any more go."""
    for node in reversed(rw.graph.nodes):
        is_read = any(rw.users(value) or rw.is_output(value) for value in node.outputs)
        if node.op in ("cast", "gather_rows") and rw.is_alive(node) and not is_read:
            rw.drop(node)


def _rounded(rw: Rewriter, x: Value, dtype: str, casts: Casts) -> Value:
    """x rounded to dtype; behind a gather of rows, before the gather.

    What a norm computes is rounded once, not first to the compute type: its kernel has the whole row at hand. So is the
    product of gate and up where scales are of groups, which the linear before has at hand; and what becomes numbers of
    another type, bfloat16 in a model of float16: no kernel reads the one and writes the other.
    """
    if x.type.dtype == dtype:
        return x
    known = casts.get((x, dtype))
    if known is not None:
        return known
    gather = made_by(x, "gather_rows")
    if gather is not None:
        inside = _rounded(rw, gather.inputs["x"], dtype, casts)
        value = Value(f"{x.name}q", TensorType(dtype, x.type.dims))
        new = Node("gather_rows", gather.inputs | {"x": inside}, {}, (value,), gather.origin)
        rw.insert(new, behind=gather)
    else:
        cast = made_by(x, "cast")
        source = cast.inputs["x"] if cast is not None and _is_at_hand(cast.inputs["x"], dtype) else x
        producer = x.producer
        assert producer is not None, "what a linear multiplies is computed"
        value = Value(f"{x.name}q", TensorType(dtype, x.type.dims))
        new = Node("cast", {"x": source}, {"dtype": dtype}, (value,), producer.origin)
        rw.insert(new, behind=producer)
    casts[x, dtype] = value
    return value


def _is_at_hand(x: Value, dtype: str) -> bool:
    """Whether what computes x can round it to dtype itself."""
    if dtype not in ROW_CODES or made_by(x, "rms_norm") is not None:
        return True
    mul = made_by(x, "mul")
    if dtype != FP8_TOKEN or mul is None:
        return False
    linears = [_linear_of(value) for value in mul.inputs.values()]
    return all(linear is not None and linear.inputs["x"].type.dtype == FP8_TOKEN for linear in linears)


def _linear_of(value: Value) -> Node | None:
    """What computes a gate or an up."""
    node = value.producer
    while node is not None and node.op in ("unary", "split"):
        node = node.inputs["x"].producer
    return node if node is not None and node.op == "linear" else None
