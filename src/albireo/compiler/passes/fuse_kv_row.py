"""What becomes of one KV head's keys on their way to the cache, a norm, a rotation, channels put behind: one kernel
that has the row in registers. Of latents (DeepSeek), keys that choose, and entries of several positions.
"""

from __future__ import annotations

from typing import Any

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.graph.node import Graph, Node, Value
from albireo.graph.report import PassRecord

WHY = "a row of some hundred numbers is written once, where two or three launches were as long as their start"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_kv_row", WHY, "reorder")
    for write in rw.nodes("kv_write"):
        if "v" not in write.inputs and write.attrs["num_kv_heads"] == 1:
            with rw.attempt(write):
                _fuse(rw, write)
    return rw.finish()


def _fuse(rw: Rewriter, write: Node) -> None:
    x, members, roles, attrs = write.inputs["k"], [write], dict(write.inputs), dict(write.attrs)
    join = made_by(x, "join_heads")
    if join is not None:
        _take(rw, join, members)
        roles["tail"] = _turned(rw, join.inputs["y"], members, roles, attrs)
        x = join.inputs["x"]
    else:
        x = _turned(rw, x, members, roles, attrs)
    norm = made_by(x, "rms_norm")
    if norm is not None and norm.attrs["num_heads"] == 1 and len(rw.users(x)) == 1 and not rw.is_output(x):
        members.append(norm)
        x = norm.inputs["x"]
        roles |= {role: value for role, value in norm.inputs.items() if role != "x"}
        attrs |= {name: norm.attrs[name] for name in ("eps", "centered") if name in norm.attrs}
    roles["k"] = x
    if len(members) == 1:
        raise NotFired(f"{x} is no norm, nor rotated: it is written as it is")
    widths = [int(roles[role].type.dims[-1]) for role in ("k", "tail") if role in roles]
    if any(width % 2 for width in widths) or sum(widths) != write.attrs["head_dim"]:
        raise NotFired(f"{widths} channels are not pairs")
    if {roles[role].type.dtype for role in ("k", "tail") if role in roles} != {"float32"}:
        raise NotFired(f"{x} is not float32")
    rw.fuse(members, "kv_write", attrs, roles, write.outputs)


def _turned(rw: Rewriter, x: Value, members: list[Node], roles: dict[str, Value], attrs: dict[str, Any]) -> Value:
    """What is rotated to x, or x itself."""
    rope = made_by(x, "rope")
    if rope is None or {*rope.inputs} - {"x", "positions"} or rope.attrs["num_heads"] != 1:
        return x
    _take(rw, rope, members)
    roles["positions"] = rope.inputs["positions"]
    attrs |= {name: rope.attrs[name] for name in ("rope", "side_by_side") if name in rope.attrs}
    return rope.inputs["x"]


def _take(rw: Rewriter, node: Node, members: list[Node]) -> None:
    """Raises: NotFired where others read it, too."""
    rw.sole_user(node.output)
    members.append(node)
