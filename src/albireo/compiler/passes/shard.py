"""Cut a model among ranks: a rank keeps its heads, its FFN channels and its part of the vocabulary.

Runs before every other pass, so that those see ordinary linears, and all_reduce. What is cut how, and why sums are
added as a tree: docs/tensor-parallel.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from albireo.compiler.leaf_sums import (
    PAIR,
    LeafSum,
    has_leaves,
    leaf_bounds,
    leaf_sum,
)
from albireo.compiler.rewrite import Rewriter, label
from albireo.compiler.state_parts import Spans, state_parts
from albireo.errors import ConfigError, UnsupportedModel, short
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.op_numbers import MAX_RANKS
from albireo.graph.ops import infer
from albireo.graph.report import Firing, PassRecord

WHY = "a rank reads its part of the weights and of the KV cache; partial sums are added in an order all sizes share"

#: Leaves of the tree of partial sums. A rank of several owns a subtree, so every size gives the same bits.
LEAVES = MAX_RANKS
SIZES = tuple(2**i for i in range(LEAVES.bit_length()))
#: Ops that work channel by channel, or head by head once their number of heads is right.
_CHANNEL_WISE = ("cast", "unary", "xielu", "clip", "scale", "add", "mul", "clamped_swiglu", "gather_rows")
#: Of what is cut as the heads of a state are.
_STATE = "state"
_OF_HEADS = ("rope", "head_linear", "join_heads", "kv_write", "attention", "gate_rows")


@dataclass(frozen=True, slots=True)
class Part:
    """One rank of size ranks. size 1: nothing is cut, but sums are added in the order that every size shares."""

    size: int
    rank: int

    @property
    def leaves(self) -> range:
        """Of the tree, those that it adds."""
        count = LEAVES // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def span(self, bounds: Sequence[int]) -> tuple[int, int]:
        """First and end of what its leaves are made of."""
        return bounds[self.leaves.start], bounds[self.leaves.stop]


def parts(size: int, in_tree_order: bool) -> tuple[Part | None, ...]:
    """What to compile for each rank; None: the graph as it is. Several ranks always add in tree order.

    Raises: ConfigError for more ranks than any model is cut among, before one is compiled for each.
    """
    if size > MAX_RANKS:
        raise ConfigError(f"tensor_parallel_size={short(size)} is not possible: it must be at most {MAX_RANKS}")
    if size == 1 and not in_tree_order:
        return (None,)
    return tuple(Part(size, rank) for rank in range(size))


def run(graph: Graph, part: Part) -> PassRecord:
    """Rewrite a base graph into that of one rank.

    Raises: ConfigError with the numbers when the model cannot be cut so; UnsupportedModel for a graph whose roles do
    not fit together.
    """
    _check_size(graph, part.size)
    rw = Rewriter(graph, "shard", WHY, "reorder")
    rw.record.notes.append(f"rank {part.rank} of {part.size}, sums as a tree of {LEAVES}")
    cutter = _Cutter(rw, part)
    for node in list(graph.nodes):
        if rw.is_alive(node):
            cutter.visit(node)
    record = rw.finish()
    graph.drop_unused_constants()
    return record


def problems(graph: Graph, size: int) -> list[str]:
    """Why a base graph cannot be cut among so many ranks; empty when it can."""
    if size not in SIZES:
        return [f"it must be one of {', '.join(map(str, SIZES))}"]
    found = []
    if any(node.op == "match_length" for node in graph.nodes):
        found.append("its residual is several streams, which are not cut among ranks yet")
    if any(node.attrs.get("own_lists") for node in graph.nodes):
        found.append("each of its KV heads chooses which positions it sees, which is not cut among ranks yet")
    for num_heads, num_kv_heads in sorted(_heads(graph)):
        if num_heads % size:
            found.append(f"{num_heads} query heads do not divide by {size}")
        if max(num_kv_heads, size) % min(num_kv_heads, size):
            found.append(f"{num_kv_heads} KV heads neither divide by {size} nor can {size} ranks share them evenly")
    origins: dict[int, str] = {}
    for node in _row_linears(graph, "linear"):
        origins.setdefault(int(node.inputs["weight"].type.dims[1]), node.origin)
    for width, origin in origins.items():
        if width % (LEAVES * PAIR):
            found.append(f"{origin} adds {width} products, no multiple of {LEAVES * PAIR} (a tree of pairs)")
    row_linears = [node for node in _row_linears(graph, "linear") if has_leaves(node)]
    if size == 1 and any("bias" in node.inputs for node in row_linears):
        found.append(f"{row_linears[0].origin} has a bias, which only a sum over ranks adds to weights in few bits")
    found += [
        problem
        for node in (*row_linears, *_row_linears(graph, "expert_linear"))
        if (problem := _group_problem(node, size))
    ][:1]
    for node in graph.nodes:
        rows = node.inputs["weight"].type.dims[0] if node.attrs.get("role") == "vocab" else size
        if int(rows) < size:
            found.append(f"a vocabulary of {rows} has no part for each of {size}")
    if not origins and not _row_linears(graph, "expert_linear") and not state_parts(graph, size, 0).outs:
        all_keep = "no rank could have a part of its layers, all of which keep states"
        found.append(all_keep if graph.recurrent else "no linear of the graph has a role")
    return list(dict.fromkeys(found))


def _group_problem(linear: Node, size: int) -> str:
    """Why ranks cannot have whole groups of a linear's inputs; "" when they can."""
    (_, width), e = linear.inputs["weight"].type.dims, linear.inputs["weight"].type.dtype
    spans = [Part(size, rank).span(leaf_bounds(linear, LEAVES)) for rank in range(size)]
    if any(first == end for first, end in spans):
        return f"{linear.origin} adds {width} products of {e}, whose groups have no part for each of {size}"
    is_free = linear.op == "expert_linear" or bool(_channels(linear))
    if is_free or spans == [(rank * int(width) // size, (rank + 1) * int(width) // size) for rank in range(size)]:
        return ""
    return f"{linear.origin} adds {width} products of {e}, and the {int(width) / size:g} of a rank are no whole groups"


def _channels(row: Node) -> list[Node]:
    """The linears that make a linear's inputs, where all are channels of an FFN, which may be cut anywhere."""
    values, found = [row.inputs["x"]], []
    for value in values:
        node = value.producer
        if node is not None and node.op == "linear" and node.attrs.get("role") == "ffn":
            found.append(node)
        elif node is None or node.op not in _CHANNEL_WISE:
            return []
        else:
            values += [each for each in node.inputs.values() if not each.is_constant and each not in values]
    return found


def _row_linears(graph: Graph, op: str) -> list[Node]:
    """Whose inputs are cut."""
    return [node for node in graph.nodes if node.op == op and node.attrs.get("role") == "row"]


def _check_size(graph: Graph, size: int) -> None:
    reasons = problems(graph, size)
    if not reasons:
        return
    possible = [str(other) for other in SIZES if not problems(graph, other)]
    # One rank without the tree is always possible: it is the graph as it is.
    way_out = f"possible for this model: {', '.join(possible or ['1'])}"
    if size == 1:
        raise ConfigError(f"tp_invariant is not possible for this model: {'; '.join(reasons)}; leave it out")
    raise ConfigError(f"tensor_parallel_size={size} is not possible for this model: {'; '.join(reasons)}; {way_out}")


def _heads(graph: Graph) -> set[tuple[int, int]]:
    """Query heads and KV heads that layers have."""
    return {(n.attrs["num_heads"], n.attrs["num_kv_heads"]) for n in graph.nodes if n.op == "attention"}


class _Cutter:
    """Walks a graph in order and knows which values a rank has a part of."""

    def __init__(self, rw: Rewriter, part: Part) -> None:
        self._rw, self._part = rw, part
        #: values of which this rank has some channels, and the role of the linear they come from
        self._cut: dict[Value, str] = {}
        self._states = state_parts(rw.graph, part.size, part.rank)
        #: linears of channels -> where leaves of them begin, as groups of the linear behind say
        self._groups = {
            node: leaf_bounds(row, LEAVES)
            for row in _row_linears(rw.graph, "linear")
            if has_leaves(row)
            for node in _channels(row)
        }
        #: ids of experts -> where leaves of their channels begin, and the last one's end
        self._bounds = {
            node.inputs["ids"]: leaf_bounds(node, LEAVES) for node in _row_linears(rw.graph, "expert_linear")
        }

    def visit(self, node: Node) -> None:
        if node.op == "linear":
            role = node.attrs.pop("role", None)
            if node in self._states.outs:
                self._row(node, self._cut.get(node.inputs["x"]), is_whole=not self._states.outs[node])
            elif node in self._states.spans:
                self._column(node, _STATE, self._states.spans[node])
            else:
                if role in ("vocab", "router"):  # of which there are no adapters
                    node.attrs["role"] = role
                self._linear(node, None if role == "router" else role)
            return
        if node.op == "expert_linear":
            self._experts(node, node.attrs.pop("role", None))
            return
        cut = {self._cut.get(v) for v in node.inputs.values() if not v.is_constant and _is_activation(v)}
        if cut <= {None}:
            return
        if len(cut) > 1 or not (self._adapt_states(node) if cut == {_STATE} else self._adapt(node)):
            raise UnsupportedModel(f"{label(node)}: cannot be computed from the part of a rank")
        types = infer(node.op, {role: v.type for role, v in node.inputs.items()}, node.attrs)
        for value, type_ in zip(node.outputs, types, strict=True):
            value.type = type_
            # what comes of the head is joined by whoever runs the ranks
            if _is_activation(value):
                self._cut[value] = next(iter(cut)) or ""

    def _adapt(self, node: Node) -> bool:
        """Make the attributes those of the part; whether that is enough."""
        width = next(v.type.dims[-1] for role, v in node.inputs.items() if role in ("x", "q", "k", "logits"))
        assert isinstance(width, int)
        if node.op == "rms_norm":
            # the type of what comes out is still that of the whole
            whole = int(node.output.type.dims[-1])
            each = whole // node.attrs["num_heads"]
            weight = int(node.inputs["weight"].type.dims[0]) if "weight" in node.inputs else each
            if weight == whole > each:  # each head has numbers of its own
                rows, weight = self._range("heads", whole, self._written(node)), each
                node.inputs["weight"] = self._constant(node.inputs["weight"], (rows,), None)
            node.attrs["num_heads"] = width // each
            return "bias" not in node.inputs and weight == each and width % each == 0
        if node.op == "rope":
            node.attrs["num_heads"] = heads = width // int(node.attrs["head_dim"])
            for name in ("slope", "start"):
                if name in node.inputs:
                    rows = self._part.rank * heads, (self._part.rank + 1) * heads
                    node.inputs[name] = self._constant(node.inputs[name], (rows,), None)
        elif node.op == "join_heads":
            node.attrs["num_heads"] = node.attrs["num_heads"] // self._part.size
        elif node.op == "head_linear":
            node.attrs["num_heads"] = node.attrs["num_heads"] // self._part.size
            rows = self._range("heads", int(node.inputs["weight"].type.dims[0]))
            node.inputs["weight"] = self._constant(node.inputs["weight"], (rows,), None)
        elif node.op in ("kv_write", "attention"):
            node.attrs["num_kv_heads"] = max(1, node.attrs["num_kv_heads"] // self._part.size)
            if node.op == "attention":
                node.attrs["num_heads"] = heads = node.attrs["num_heads"] // self._part.size
                if "sinks" in node.inputs:
                    rows = self._part.rank * heads, (self._part.rank + 1) * heads
                    node.inputs["sinks"] = self._constant(node.inputs["sinks"], (rows,), None)
                if "slopes" in node.attrs:
                    first = self._part.rank * heads
                    node.attrs["slopes"] = node.attrs["slopes"][first : first + heads]
        return node.op in (*_CHANNEL_WISE, *_OF_HEADS, "top_logits")

    def _adapt_states(self, node: Node) -> bool:
        """The same of what lies around a state, as it was found."""
        spans, heads = self._states.spans.get(node), self._states.heads.get(node)
        node.attrs |= heads or {}
        for name in ("weight", "bias", "a_log", "dt_bias", "skip") if spans else ():
            if name in node.inputs:
                node.inputs[name] = self._constant(node.inputs[name], spans, None)
        return spans is not None or heads is not None or node.op in _CHANNEL_WISE

    def _linear(self, node: Node, role: str | None) -> None:
        kind = self._cut.get(node.inputs["x"])
        if kind is not None and role != "row":
            raise UnsupportedModel(f"{label(node)}: needs all of its input, of which a rank has a part")
        if role == "row":
            self._row(node, kind)
        elif role is not None and self._part.size > 1:
            rows, bounds = int(node.inputs["weight"].type.dims[0]), self._groups.get(node)
            own = self._range(role, rows, self._written(node)) if bounds is None else self._part.span(bounds)
            self._column(node, role, (own,))

    def _column(self, node: Node, role: str, rows: Spans, blocks: int = 1) -> None:
        """Some of the outputs: rows of the weight, or of each of so many blocks of it."""
        before = str(node)
        for name in ("weight", "bias"):
            if name in node.inputs:
                node.inputs[name] = self._constant(node.inputs[name], rows, None, blocks=blocks)
        out = node.output
        out.type = TensorType(out.type.dtype, (*out.type.dims[:-1], _num_rows(rows)))
        self._cut[out] = role
        self._changed(node, before)

    def _row(self, node: Node, kind: str | None, *, is_whole: bool = False) -> None:
        """Some of the inputs: columns of the weight. What comes out is a partial sum; but is_whole: each rank has all
        inputs, and adds all leaves."""
        before, part = str(node), Part(1, 0) if is_whole else self._part
        width, size = int(node.inputs["weight"].type.dims[1]), part.size
        if has_leaves(node):
            self._leaves(node, kind, part)
            return
        if size < LEAVES:
            node.attrs["chunks"] = LEAVES // size
        if size == 1:
            self._changed(node, before)
            return
        if kind is None:
            raise UnsupportedModel(f"{label(node)}: has the role row, but its input is not a rank's part")
        columns = (part.rank * width // size, (part.rank + 1) * width // size)
        out, inputs = node.output, {"x": node.inputs["x"]}
        inputs["weight"] = self._constant(node.inputs["weight"], None, columns)
        partial = Value(f"{out.name}p", out.type)
        new = Node("linear", inputs, dict(node.attrs), (partial,), node.origin)
        terms = {"x": partial} | ({"bias": node.inputs["bias"]} if "bias" in node.inputs else {})
        self._rw.replace((node,), (new, Node("all_reduce", terms, {"ranks": size}, (out,), node.origin)))

    def _leaves(self, node: Node, kind: str | None, part: Part) -> None:
        """The same of a weight in few bits: each leaf by itself."""
        if kind is None and part.size > 1:
            raise UnsupportedModel(f"{label(node)}: has the role row, but its input is not a rank's part")
        found = leaf_sum(node, part.leaves, leaf_bounds(node, LEAVES), self._leaf_of(node))
        self._add_up((node,), found, part, node.inputs.get("bias"))

    def _leaf_of(self, node: Node) -> Callable[[int, int, int], Value]:
        return lambda i, *columns: self._constant(node.inputs["weight"], None, columns, f"{LEAVES}.{i}")

    def _add_up(self, old: tuple[Node, ...], found: LeafSum, part: Part, bias: Value | None = None) -> None:
        """Put a rank's leaves, and the sum of all ranks', in the place of the nodes of one that has all."""
        out, last = old[-1].output, found.nodes[-1]
        if part.size == 1:
            new = (*found.nodes[:-1], Node(last.op, last.inputs, last.attrs, (out,), last.origin))
        else:
            terms = {"x": found.total} | ({} if bias is None else {"bias": bias})
            new = (*found.nodes, Node("all_reduce", terms, {"ranks": part.size}, (out,), old[-1].origin))
        self._rw.replace(old, new)
        if found.unused is not None and not self._rw.users(found.unused.output):
            self._rw.drop(found.unused)

    def _experts(self, node: Node, role: str | None) -> None:
        """Of every expert some of the outputs, or some of the inputs."""
        kind, bounds = self._cut.get(node.inputs["x"]), self._bounds.get(node.inputs["ids"])
        if role == "row":
            self._expert_leaves(node, kind)
        elif kind is not None:
            raise UnsupportedModel(f"{label(node)}: needs all of its input, of which a rank has a part")
        elif role is not None and self._part.size > 1:
            rows = int(node.output.type.dims[-1])
            if bounds is None or bounds[-1] != rows:
                raise UnsupportedModel(f"{label(node)}: its outputs are no inputs of experts that ranks add up")
            self._column(node, role, (self._part.span(bounds),), int(node.attrs["num_experts"]))

    def _expert_leaves(self, down: Node, kind: str | None) -> None:
        if kind is None and self._part.size > 1:
            raise UnsupportedModel(f"{label(down)}: has the role row, but its input is not a rank's part")
        users = self._rw.users(down.output)
        if len(users) != 1 or users[0].op != "combine":
            raise UnsupportedModel(f"{label(down)}: what it gives is not added up for each token, and nothing else")
        found = leaf_sum(down, self._part.leaves, leaf_bounds(down, LEAVES), self._leaf_of(down), combine=users[0])
        self._add_up((down, users[0]), found, self._part)

    def _changed(self, node: Node, before: str) -> None:
        self._rw.record.firings.append(Firing(node.origin, (before,), (str(node),)))

    def _range(self, role: str, rows: int, written: Node | None = None) -> tuple[int, int]:
        """First and end of this rank's outputs among all. written: what keeps them as keys or values."""
        size, rank = self._part.size, self._part.rank
        if role == "heads" and written is not None and size > written.attrs["num_kv_heads"]:
            # several ranks keep the same KV head: the one that their query heads read
            first, each = rank * written.attrs["num_kv_heads"] // size, written.attrs["head_dim"]
            return first * each, (first + 1) * each
        return rank * rows // size, (rank + 1) * rows // size

    def _written(self, linear: Node) -> Node | None:
        """What keeps outputs of a linear in the KV cache, if anything does."""
        values = [linear.output]
        for value in values:
            for user in self._rw.users(value):
                if user.op == "kv_write":
                    return user
                if user.op in (*_CHANNEL_WISE, "rms_norm", "rope"):
                    values += [each for each in user.outputs if each not in values]
        return None

    def _constant(
        self,
        value: Value,
        rows: Spans | None,
        columns: tuple[int, int] | None,
        part: str = "",
        blocks: int = 1,
    ) -> Value:
        """A part of a constant, under a name of its own: the whole one may be read elsewhere. rows: of each of so many
        blocks."""
        definition = value.constant
        if definition is None or definition.columns is not None:
            raise UnsupportedModel(f"{value}: only a constant of the checkpoint can be cut")
        dims = list(value.type.dims)
        if rows is not None:
            definition, dims[0] = definition.rows_of(rows, blocks), blocks * _num_rows(rows)
        if columns is not None:
            definition, dims[1] = replace(definition, columns=columns), columns[1] - columns[0]
        name = f"{value.name}/{part or self._part.size}"
        return self._rw.add_constant(Value(name, TensorType(value.type.dtype, tuple(dims)), constant=definition))


def _num_rows(spans: Spans) -> int:
    return sum(end - first for first, end in spans)


def _is_activation(value: Value) -> bool:
    return value.type.dtype not in ("kv", "int32")
