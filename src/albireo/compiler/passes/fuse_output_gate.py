"""A gate on a layer's output: a norm of heads before it, its activation, the product, a norm of that, or of groups of
it, and the rounding: one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node, Value
from albireo.graph.op_numbers import RECURRENT
from albireo.graph.program_spec import GATE_KINDS
from albireo.graph.report import PassRecord

#: Numbers of a group that a norm behind the product is of, at most: a program has them in registers.
_WIDEST = 16384

WHY = "what two linears gave is read once, and what the next one multiplies is written, rounded"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_output_gate", WHY, "exact")
    for product in rw.nodes("mul"):
        for x, unary in _gated(product):
            with rw.attempt(product, unary):
                _fuse(rw, product, x, unary)
    return rw.finish()


def _gated(product: Node) -> Iterator[tuple[Value, Node]]:
    """What is multiplied, and by which activation: silu of a norm of heads or of what states give, sigmoids of all."""
    values = product.inputs["x"], product.inputs["y"]
    for x, y in (values, values[::-1]):
        unary = made_by(y, "unary")
        if x is y or unary is None or unary.attrs["kind"] not in GATE_KINDS:
            continue
        is_of_state = x.producer is not None and x.producer.op in RECURRENT
        if unary.attrs["kind"] == "sigmoid" or is_of_state or _is_norm_of_heads(x.producer):
            yield x, unary
            return


def _is_norm_of_heads(node: Node | None) -> bool:
    return (
        node is not None
        and node.op == "rms_norm"
        and node.attrs["num_heads"] > 1
        and "centered" not in node.attrs
        and set(node.inputs) == {"x", "weight"}
    )


def _fuse(rw: Rewriter, product: Node, x: Value, unary: Node) -> None:
    rw.sole_user(unary.output)
    members, attrs, roles = [unary, product], {"kind": unary.attrs["kind"]}, {"gate": unary.inputs["x"]}
    norm = x.producer
    more: dict[str, Any] = {}
    if norm is not None and _is_norm_of_heads(norm) and rw.users(x) == [product] and not rw.is_output(x):
        members.insert(0, norm)
        x, more = norm.inputs["x"], {name: norm.attrs[name] for name in ("eps", "num_heads")}
        roles["weight"] = norm.inputs["weight"]
    behind = None if more else _norm_behind(rw, product)
    if behind is not None:
        members.append(behind)
        roles["weight"] = behind.inputs["weight"]
        more = {"eps": behind.attrs["eps"], "num_heads": _groups(behind), "is_behind": True}
    if {x.type.dtype, roles["gate"].type.dtype} != {"float32"} or int(x.type.dims[-1]) % 2:
        raise NotFired(f"{x} and {roles['gate']} are not both float32, of an even width")
    cast = rw.only(members[-1].output, "cast")
    if cast is not None and cast.attrs["dtype"] not in ROW_CODES:  # which needs the whole row at once
        members.append(cast)
    rw.fuse(members, "output_gate", attrs | more, roles | {"x": x}, members[-1].outputs)


def _norm_behind(rw: Rewriter, product: Node) -> Node | None:
    """The norm of what the gate lets through, or of equal groups of it, with the rounding that it has already."""
    if rw.is_output(product.output) or len(rw.users(product.output)) != 1:
        return None
    (norm,) = rw.users(product.output)
    if (norm.op, norm.family) not in (("rms_norm", None), ("fused", "norm")) or norm.attrs.get("centered", False):
        return None
    if {*norm.inputs} != {"x", "weight"} or norm.output.type.dtype in ROW_CODES:
        return None
    width, rest = divmod(int(norm.output.type.dims[-1]), _groups(norm))
    is_of_all = norm.inputs["weight"].type.dims == (norm.output.type.dims[-1],)
    return norm if is_of_all and not rest and not width % 2 and width <= _WIDEST else None


def _groups(norm: Node) -> int:
    """Parts of a row that are normed by themselves."""
    return int(norm.attrs.get("num_heads", 1))
