"""A rotation of heads with the norm of each before it and the rounding behind it: one kernel."""

from __future__ import annotations

from albireo.compiler.passes.single_ops import SINGLES
from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "heads are in registers to be rotated: they are normed and rounded there, not in further passes over memory"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_rope", WHY, "exact")
    for rope in rw.nodes("rope"):
        with rw.attempt(rope):
            _fuse(rw, rope)
    return rw.finish()


def _fuse(rw: Rewriter, rope: Node) -> None:
    family, attrs, roles = SINGLES["rope"](rope)
    members, x = [rope], rope.inputs["x"]
    norm = made_by(x, "rms_norm")
    if norm is not None and _is_of_heads(norm, rope) and rw.users(x) == [rope] and not rw.is_output(x):
        members.insert(0, norm)
        roles |= norm.inputs
        attrs |= {"eps": norm.attrs["eps"]}
    cast = rw.only(rope.output, "cast")
    if cast is not None and cast.attrs["dtype"] not in ROW_CODES:
        members.append(cast)
    if len(members) == 1:
        raise NotFired(f"{rope.output} is neither rounded, nor of heads that are normed")
    rw.fuse(members, family, attrs, roles, members[-1].outputs)


def _is_of_heads(norm: Node, rope: Node) -> bool:
    """Whether each head is normed by itself, with the same weight or none."""
    weight = norm.inputs.get("weight")
    alike = weight is None or weight.type.dims == (rope.attrs["head_dim"],)
    is_plain = "bias" not in norm.inputs and "centered" not in norm.attrs
    return is_plain and alike and norm.attrs["num_heads"] == rope.attrs["num_heads"]
