"""The linears of q, k and v, which read the same input, become one; where they differ, the two that agree do."""

from __future__ import annotations

from albireo.compiler.qkv_pattern import around, match_qkv
from albireo.compiler.rewrite import NotFired, Rewriter, made_by, merge_linears
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "one linear reads its input once, has more columns to share among threads, and needs one barrier"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "merge_qkv", WHY, "exact")
    for write in rw.nodes("kv_write"):
        with rw.attempt(*around(rw, write)):
            sources = match_qkv(rw, write).sources
            linears = [node for value in sources if (node := made_by(value, "linear")) is not None]
            if len(linears) == 3:
                pair, other = _pair(linears)
                merge_linears(rw, pair or linears)
                if other is not None:
                    raise NotFired(f"{other.origin} stays alone: {_difference(other, pair[0])}")
            elif linears:
                raise NotFired(f"only {len(linears)} of q, k, v come from a linear of their own")
    return rw.finish()


def _pair(linears: list[Node]) -> tuple[list[Node], Node | None]:
    """The two that agree and the third, where that differs: a checkpoint may hold v in more bits than q and k."""
    for third in linears:
        first, second = (linear for linear in linears if linear is not third)
        if _kind(first) == _kind(second) != _kind(third):
            return [first, second], third
    return [], None


def _kind(linear: Node) -> tuple[object, ...]:
    return linear.inputs["x"], linear.inputs["weight"].type.dtype


def _difference(linear: Node, other: Node) -> str:
    if linear.inputs["x"] is not other.inputs["x"]:
        return "it reads another input"
    kinds = [each.inputs["weight"].type.dtype for each in (linear, other)]
    return f"its weight is {kinds[0]}, the others {kinds[1]}"
