"""How layers that keep a state are cut among ranks: by heads of values, or by channels where there are no heads.

Used by passes/shard.py. Roles say nothing of them: what makes a state, and what is made of it, lie around the op that
keeps it. A layer whose heads do not divide is computed by every rank, whole; its last sum is a tree all the same, so
that every size gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from albireo.compiler.leaf_sums import PAIR, has_even_leaves, has_leaves
from albireo.graph.node import Graph, Node, Value
from albireo.graph.op_numbers import MAX_RANKS

#: First and end of some rows or channels, several times.
Spans = tuple[tuple[int, int], ...]
#: Parts of a row: whether its heads are those of keys or of values, and the channels of one.
_Parts = tuple[tuple[str, int], ...]
_KEYS, _VALUES = "num_k_heads", "num_v_heads"
#: Of ops that keep a state: the parts of the rows that they read, by names of their attributes.
_READ = {
    "gated_delta_rule": ((_KEYS, "k_dim"), (_KEYS, "k_dim"), (_VALUES, "v_dim")),
    "selective_state": ((_VALUES, "v_dim"), (_KEYS, "k_dim"), (_KEYS, "k_dim")),
}
#: What is read of a token for each head of values, by role, and how often.
_GATES = {"gated_delta_rule": ("gates", 2), "selective_state": ("dt", 1)}
#: What may lie behind a state, before the linear that reads all of it.
_BEHIND = ("cast", "unary", "scale", "mul", "rms_norm")


@dataclass(slots=True)
class StateParts:
    """What a rank has of the layers that keep a state.

    Fields:
        spans: of linears their outputs, and of ops with vectors by channel or head what these are of, that are its own.
        heads: attributes that are others, by node.
        outs: linears behind a state, whose sums are trees; whether a rank has a part of their inputs.
    """

    spans: dict[Node, Spans] = field(default_factory=dict)
    heads: dict[Node, dict[str, int]] = field(default_factory=dict)
    outs: dict[Node, bool] = field(default_factory=dict)


@dataclass(slots=True)
class _Layer:
    """Fields: heads: of keys and of values; channels are heads of values, of one each. parts: of outputs or vectors, by
    node. norm: behind the state. joins: of linears, to what the state reads. out: the linear behind it."""

    core: Node
    heads: dict[str, int]
    out: Node
    parts: dict[Node, _Parts]
    norm: Node | None = None
    joins: tuple[Node, ...] = ()


class _OtherShape(Exception):
    """A layer is not of the shape that can be cut."""


def state_parts(graph: Graph, size: int, rank: int) -> StateParts:
    """Of one rank of so many; nothing of layers of other shapes than are known, which every rank computes whole."""
    found, finder = StateParts(), _Finder(graph)
    for node in graph.recurrent:
        try:
            layer = finder.layer(node)
        except _OtherShape:
            continue
        if layer is None or not _divides(layer, 2) or not _is_tree(layer.out):  # what four divide, two do
            continue
        found.outs[layer.out] = size > 1 and _divides(layer, size)
        if found.outs[layer.out]:
            _take(found, layer, size, rank)
    return found


def _take(found: StateParts, layer: _Layer, size: int, rank: int) -> None:
    mine = {kind: _heads_of(count, size, rank) for kind, count in layer.heads.items()}
    for node, parts in layer.parts.items():
        spans, start = [], 0
        for kind, width in parts:
            spans.append((start + mine[kind][0] * width, start + mine[kind][1] * width))
            start += layer.heads[kind] * width
        found.spans[node] = tuple(spans)
    if layer.core.op in _READ:
        found.heads[layer.core] = {kind: end - first for kind, (first, end) in mine.items()}
    if layer.norm is not None:
        found.heads[layer.norm] = {"num_heads": layer.norm.attrs["num_heads"] // size}
    found.heads |= {join: {} for join in layer.joins}


def _heads_of(count: int, size: int, rank: int) -> tuple[int, int]:
    """First and end of a rank's heads; where there are fewer than ranks, several have the same one."""
    first = rank * count // size
    return first, max((rank + 1) * count // size, first + 1)


def _divides(layer: _Layer, size: int) -> bool:
    keys = layer.heads.get(_KEYS, size)
    norms = size if layer.norm is None else int(layer.norm.attrs["num_heads"])
    return not (layer.heads[_VALUES] % size or max(keys, size) % min(keys, size) or norms % size)


def _is_tree(out: Node) -> bool:
    """Whether its inputs are eight leaves, on any number of ranks and on one."""
    if int(out.inputs["weight"].type.dims[1]) % (MAX_RANKS * PAIR):
        return False
    return not has_leaves(out) or ("bias" not in out.inputs and has_even_leaves(out, MAX_RANKS))


class _Finder:
    """Looks at what lies around an op that keeps a state."""

    def __init__(self, graph: Graph) -> None:
        self._users: Mapping[Value, list[Node]] = graph.users()
        self._outputs = set(graph.outputs.values())

    def layer(self, core: Node) -> _Layer | None:
        """Of the op that is last of those that keep states in its layer; None of others. Raises: _OtherShape."""
        if core.op == "causal_conv" and not core.attrs.get("gated"):
            return None  # it belongs to the op behind it
        if core.op == "causal_conv":
            channels = int(core.inputs["weight"].type.dims[0])
            each: _Parts = ((_VALUES, 1),)
            layer = self._behind(core, {_VALUES: channels}, each)
            layer.parts[core] = each
            self._before(layer, core.inputs["x"], each * 3)
            return layer
        # Mamba 1's: what channels read of a token is made of all of them; rates of channels are made in two steps; what
        # is kept at one rate has a norm of all heads behind it
        is_by_channel = core.op == "gated_delta_rule" and "dt" in core.inputs
        if core.op not in _READ or is_by_channel or "slopes" in core.attrs:
            raise _OtherShape
        heads = {kind: int(core.attrs[kind]) for kind in (_KEYS, _VALUES)}
        layer = self._behind(core, heads, ((_VALUES, int(core.attrs["v_dim"])),))
        read = tuple((kind, int(core.attrs[width])) for kind, width in _READ[core.op])
        conv = core.inputs["x"].producer
        if conv is None or conv.op != "causal_conv" or not self._is_sole(conv.output):
            raise _OtherShape
        layer.parts |= {core: ((_VALUES, 1),), conv: read}
        self._before(layer, conv.inputs["x"], read)
        role, times = _GATES[core.op]
        self._before(layer, core.inputs[role], ((_VALUES, 1),) * times)
        return layer

    def _behind(self, core: Node, heads: dict[str, int], parts: _Parts) -> _Layer:
        """From what is read of a state to the linear behind it."""
        value, norm, gates = core.output, None, []
        while True:
            if not self._is_sole(value):
                raise _OtherShape
            (node,) = self._users[value]
            if node.op == "linear":
                break
            if node.op not in _BEHIND or (node.op == "rms_norm" and norm is not None):
                raise _OtherShape
            if node.op == "rms_norm":
                norm = node
            if node.op == "mul":
                gates.append(node.inputs["y"] if node.inputs["x"] is value else node.inputs["x"])
            value = node.output
        layer = _Layer(core, heads, node, {}, norm)
        if norm is not None:
            self._check_norm(layer, norm, parts)
        for gate in gates:
            self._before(layer, gate, parts)
        return layer

    def _check_norm(self, layer: _Layer, norm: Node, parts: _Parts) -> None:
        """One weight for all heads, or a number for each channel."""
        if "weight" not in norm.inputs or "bias" in norm.inputs:
            raise _OtherShape
        rows, width = int(norm.inputs["weight"].type.dims[0]), int(norm.output.type.dims[-1])
        if rows == width:
            layer.parts[norm] = parts
        elif rows * int(norm.attrs["num_heads"]) != width:
            raise _OtherShape

    def _before(self, layer: _Layer, value: Value, parts: _Parts) -> None:
        """Linears that make a value, each with its parts of it."""
        left = list(parts)
        for linear in self._linears(layer, value):
            rows, mine = int(linear.output.type.dims[-1]), []
            while left and rows > 0:
                mine.append(left.pop(0))
                rows -= layer.heads[mine[-1][0]] * mine[-1][1]
            if rows or linear in layer.parts:
                raise _OtherShape
            layer.parts[linear] = tuple(mine)
        if left:
            raise _OtherShape

    def _linears(self, layer: _Layer, value: Value) -> Iterator[Node]:
        node = value.producer
        if node is None or not self._is_sole(value):
            raise _OtherShape
        if node.op == "linear":
            yield node
        elif node.op == "join_heads" and node.attrs["num_heads"] == 1:
            layer.joins += (node,)
            yield from self._linears(layer, node.inputs["x"])
            yield from self._linears(layer, node.inputs["y"])
        elif node.op in ("scale", "unary", "cast"):
            yield from self._linears(layer, node.inputs["x"])
        else:
            raise _OtherShape

    def _is_sole(self, value: Value) -> bool:
        return value not in self._outputs and len(self._users.get(value, ())) == 1
