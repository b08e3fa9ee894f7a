"""The ops between the linears that make q, k, v and the KV cache, found by walking back from a kv_write.

Used by passes/merge_qkv.py and passes/fuse_qkv_rope_kv.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.graph.node import Node, Value

_BETWEEN = ("linear", "split", "rms_norm", "rope", "cast", "scale")


@dataclass(frozen=True, slots=True)
class Chain:
    """source -> [norm] -> [rope] -> [cast] -> end; nobody else reads what lies between."""

    source: Value
    end: Value
    norm: Node | None
    rope: Node | None
    cast: Node | None

    @property
    def nodes(self) -> list[Node]:
        return [node for node in (self.norm, self.rope, self.cast) if node is not None]


@dataclass(frozen=True, slots=True)
class Qkv:
    """One layer's q, k and v up to its kv_write and its attention."""

    q: Chain
    k: Chain
    v: Chain
    write: Node
    attention: Node

    @property
    def sources(self) -> tuple[Value, Value, Value]:
        return self.q.source, self.k.source, self.v.source


def match_qkv(rw: Rewriter, write: Node) -> Qkv:
    """The pattern around a kv_write. Raises: NotFired when something else reads a value in between."""
    attention = _first_reader(rw, write)
    if attention is None:
        raise NotFired(f"{write.output} is read by no attention")
    if "v" not in write.inputs:
        raise NotFired("values are channels of keys: the kernel writes both")
    return Qkv(
        q=_walk_back(rw, attention.inputs["q"]),
        k=_walk_back(rw, write.inputs["k"]),
        v=_walk_back(rw, write.inputs["v"]),
        write=write,
        attention=attention,
    )


def _first_reader(rw: Rewriter, write: Node) -> Node | None:
    """The attention of the layer that writes; layers behind it that share a cache may read the same state."""
    return next((node for node in rw.users(write.output) if node.op == "attention"), None)


def around(rw: Rewriter, write: Node) -> list[Node]:
    """kv_write first, then every op between the linears and it; what a refusal is about."""
    reader = _first_reader(rw, write)
    written = [write.inputs[role] for role in ("k", "v") if role in write.inputs]
    found, front = [write], [*written, *([] if reader is None else [reader.inputs["q"]])]
    while front:
        node = front.pop().producer
        if node is not None and node.op in _BETWEEN and node not in found:
            found.append(node)
            if node.op != "linear":
                front.append(node.inputs["x"])
    return found


def _walk_back(rw: Rewriter, end: Value) -> Chain:
    found: dict[str, Node | None] = {}
    value = end
    for op in ("cast", "rope", "rms_norm"):
        rw.sole_user(value)
        found[op] = node = made_by(value, op)
        if node is not None:
            value = node.inputs["x"]
    rw.sole_user(value)
    return Chain(value, end, found["rms_norm"], found["rope"], found["cast"])
