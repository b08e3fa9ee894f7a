"""A norm of what a block gives, added to the residual, and the norm of that sum: one kernel, which has the whole row.

Between them may be a number that the sum is multiplied by.
"""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, body_of
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

#: Columns of a row that a program holds, at most.
_WIDEST = 16384

WHY = "the row that the second norm reads is in registers where the first one ends"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_two_norms", WHY, "exact")
    for first in rw.nodes("fused"):
        if first.family == "norm" and "residual" in first.inputs:
            with rw.attempt(first):
                _fuse(rw, first)
    return rw.finish()


def _fuse(rw: Rewriter, first: Node) -> None:
    _require_plain(first, {"x", "weight", "residual"})
    if int(first.output.type.dims[-1]) > _WIDEST:
        raise NotFired(f"{first.output} is wider than {_WIDEST} columns")
    total, members, roles = first.output, [first], dict(first.inputs)
    users = rw.users(total)
    if len(users) == 1 and users[0].op == "scale_by" and not rw.is_output(total):
        members.append(users[0])
        roles["by"], total = users[0].inputs["weight"], users[0].output
    second = next((user for user in rw.users(total) if user.family == "norm"), None)
    if second is None or second.inputs["x"] is not total:
        raise NotFired(f"no norm reads {total}")
    _require_plain(second, {"x", "weight"})
    members.append(second)
    if "weight" in second.inputs:
        roles["next_weight"] = second.inputs["weight"]
    outputs = (total, second.output)
    attrs = {"eps": first.attrs["eps"], "next_eps": second.attrs["eps"]}
    body = body_of(members, roles, outputs)
    rw.saves(total)
    # where the first stood: others that read the sum may stand before the second
    node = Node("fused", roles, attrs, outputs, first.origin, body=body, family="two_norms")
    rw.replace(members, (node,), at="first")


def _require_plain(norm: Node, roles: set[str]) -> None:
    """Raises: NotFired for a norm of gathered rows, with a bias, or of a row less its mean."""
    if {*norm.inputs} - roles or norm.attrs.get("centered", False):
        raise NotFired(f"{norm.output} is more than a row over its root mean square: {', '.join(norm.inputs)}")
