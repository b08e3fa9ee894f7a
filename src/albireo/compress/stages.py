"""A base graph cut into stages: each computes an input, and then the linears that read it, so that what they read is
known before their weights are needed.

Called by run.py and sensitivity.py. Looks at the graph alone, so it serves every architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from albireo.errors import InvariantError, UnsupportedModel
from albireo.graph.node import Graph, Node, Value
from albireo.graph.op_numbers import ATTENTION_ATTRS


@dataclass(frozen=True, slots=True)
class Fold:
    """Where scales of a group's input go: what made the input is divided by them.

    Fields:
        kind: norm: the weight [K] of a norm; rows: the output channels of a linear (and its bias), such as up before
            down; heads: those of the value projection before the output projection, where num_heads query heads read
            num_kv_heads value heads.
        weight, bias: names of the tensors that are divided.
        num_heads, num_kv_heads: of kind heads.
    """

    kind: str
    weight: str
    bias: str | None = None
    num_heads: int = 0
    num_kv_heads: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Linears that read one input.

    Fields:
        name: of the first's module, for reports.
        weights: names of the weight tensors [N, K].
        input: the value they read.
        fold: None where the input has another reader or no place to fold scales into.
        is_head: the vocabulary head.
        is_table: its weight is the embedding table too.
    """

    name: str
    weights: tuple[str, ...]
    input: Value
    fold: Fold | None
    is_head: bool = False
    is_table: bool = False

    @property
    def modules(self) -> tuple[str, ...]:
        """Module names as checkpoints have them."""
        return tuple(name.removesuffix(".weight") for name in self.weights)


@dataclass(slots=True)
class Stage:
    """Nodes that run together.

    Fields:
        group: linears that read one input.
        layer: the number of the layer they are in, from their origin; that of the head is one more than the last.
        before: nodes that lead to the input; nodes: from the first linear to the last.
        keep_before: values read behind before, the input among them; keep: values read behind the stage.
    """

    group: Group
    layer: int
    before: list[Node] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    keep_before: tuple[Value, ...] = ()
    keep: tuple[Value, ...] = ()

    @property
    def constants(self) -> tuple[Value, ...]:
        read = (v for node in (*self.before, *self.nodes) for v in node.inputs.values())
        return tuple(dict.fromkeys(v for v in read if v.constant is not None))


#: Of attention what forward.py computes, beside what every one has.
_ATTENTION_INPUTS, _ATTENTION_ATTRS = ("q", "kv", "sinks"), ("in_chunks", "causal")
#: What may be done to the logits behind the linear they come out of.
_BEHIND_HEAD = ("scale", "unary")


def cut(graph: Graph) -> list[Stage]:
    """The stages that lead to the logits, in order; the last keeps them.

    Raises: InvariantError for a graph that passes have rewritten; UnsupportedModel for a model that writes no text, for
        linears that share a tensor, for layers that share a cache, and where more is done to what the head gives than
        forward.py computes.
    """
    logits = graph.outputs.get("logits")
    if logits is None:
        raise UnsupportedModel(
            "this model writes no text, so it has no logits, by which calibration is judged; --quantization rounds the "
            "weights of such a model where it is loaded or built"
        )
    nodes = _leading_to(graph, logits)
    stages: list[Stage] = []
    waiting: list[Node] = []
    for index, node in enumerate(nodes):
        if node.op == "fused":
            raise InvariantError(f"{node} is no base op; stages are cut from base graphs")
        if node.op == "attention" and _writer(node).attrs["layer"] != node.attrs["layer"]:
            raise UnsupportedModel(
                f"{node.origin}: reads the keys and values of another layer, and such models are not quantized into a "
                "checkpoint; --quantization does it where a model is loaded or built"
            )
        if node.op == "attention":
            _check_attention(node)
        waiting.append(node)
        if node.op != "linear" or _is_read_again(node, nodes[index + 1 :]):
            continue
        first = next(i for i, one in enumerate(waiting) if one.op == "linear")
        layer = _layer(waiting[first], stages)
        stages.append(Stage(_group(graph, waiting[first], nodes), layer, waiting[:first], waiting[first:]))
        waiting = []
    _check_read_once(stages)
    behind = [node.op for node in waiting if node.op not in _BEHIND_HEAD]
    if not stages or behind:
        made = f"{', '.join(behind)} behind the head" if behind else "no linear leads to the logits"
        raise UnsupportedModel(
            f"{made}, which calibration does not compute; --quantization rounds the weights of such a model where it "
            "is loaded or built"
        )
    stages[-1].nodes += waiting
    _set_kept(stages, logits)
    return stages


def _check_read_once(stages: list[Stage]) -> None:
    """Raises: UnsupportedModel for weights that several stages read, each of which would round them for itself."""
    read: dict[str, str] = {}
    for stage in stages:
        for name in stage.group.weights:
            if name in read:
                raise UnsupportedModel(
                    f"{stage.nodes[0].origin}: reads {name}, as {read[name]} does, and what a matrix is given in "
                    "several places is not calibrated together; --quantization does it where a model is loaded or built"
                )
            read[name] = stage.nodes[0].origin


def _check_attention(node: Node) -> None:
    """Raises: UnsupportedModel for what would be left out, so that another model were looked at."""
    given = [role for role in node.inputs if role not in _ATTENTION_INPUTS]
    given += [name for name in ATTENTION_ATTRS if node.attrs.get(name) and name not in _ATTENTION_ATTRS]
    if given:
        raise UnsupportedModel(
            f"{node.origin}: its attention has {', '.join(given)}, which calibration does not compute; --quantization "
            "rounds the weights of such a model where it is loaded or built"
        )


def _writer(attention: Node) -> Node:
    """The node that made the state of the cache which an attention reads."""
    written = attention.inputs["kv"].producer
    assert written is not None
    return written


def _is_read_again(linear: Node, later: list[Node]) -> bool:
    return any(node.op == "linear" and node.inputs["x"] is linear.inputs["x"] for node in later)


def _set_kept(stages: list[Stage], logits: Value) -> None:
    """Walk backwards with what is read behind each place. A cache lives inside a stage."""
    read: set[Value] = {logits}
    for stage in reversed(stages):
        stage.keep = _made_of(read, stages)
        read |= {v for node in stage.nodes for v in node.inputs.values()}
        read -= {v for node in stage.nodes for v in node.outputs}
        stage.keep_before = _made_of(read, stages)
        read |= {v for node in stage.before for v in node.inputs.values()}
        read -= {v for node in stage.before for v in node.outputs}


def _made_of(read: set[Value], stages: list[Stage]) -> tuple[Value, ...]:
    made = (v for stage in stages for node in (*stage.before, *stage.nodes) for v in node.outputs)
    return tuple(value for value in made if value in read and value.type.dtype != "kv")


def _leading_to(graph: Graph, output: Value) -> list[Node]:
    wanted, found = {output}, []
    for node in reversed(graph.nodes):
        if any(value in wanted for value in node.outputs):
            wanted |= set(node.inputs.values())
            found.append(node)
    return found[::-1]


def _layer(node: Node, stages: list[Stage]) -> int:
    parts = node.origin.split(".")
    if parts[0] == "layers":
        return int(parts[1])
    return stages[-1].layer + 1 if stages else 0


def _group(graph: Graph, first: Node, nodes: list[Node]) -> Group:
    shared = first.inputs["x"]
    members = [node for node in nodes if node.op == "linear" and node.inputs["x"] is shared]
    weights = tuple(_tensor(node) for node in members)
    readers = [node for node in nodes if shared in node.inputs.values()]
    fold = _fold(shared, nodes) if len(readers) == len(members) else None
    is_head = first is [node for node in nodes if node.op == "linear"][-1]
    constant = first.inputs["weight"]
    is_table = any(node.op == "embed" and node.inputs["table"] is constant for node in graph.nodes)
    return Group(weights[0].removesuffix(".weight"), weights, shared, fold, is_head, is_table)


def _tensor(node: Node) -> str:
    """The one tensor a linear's weight is. Raises: UnsupportedModel where it is a part of one."""
    weight = node.inputs["weight"]
    constant = weight.constant
    assert constant is not None
    if constant.columns is None and constant.sources != (weight.name,):
        raise UnsupportedModel(
            f"{node.origin}: tensor {', '.join(constant.sources)} holds the rows of several linears, which are not "
            "quantized into a checkpoint; --quantization does it where a model is loaded or built"
        )
    if len(constant.segments) > 1:
        raise UnsupportedModel(
            f"{node.origin}: rows of {weight.name} are taken in another order, in which they are not quantized into a "
            "checkpoint; --quantization does it where a model is loaded or built"
        )
    if len(constant.sources) != 1 or constant.columns is not None:
        raise InvariantError(f"{node}: its weight is no whole tensor; stages are cut from base graphs")
    return constant.sources[0]


def _fold(value: Value, nodes: list[Node]) -> Fold | None:
    """What made value, looked through casts and choices of rows: each of them read once."""

    def readers(v: Value) -> int:
        return sum(v in node.inputs.values() for node in nodes)

    made = value.producer
    while made is not None and made.op in ("cast", "gather_rows"):
        if readers(made.inputs["x"]) > 1:
            return None
        made = made.inputs["x"].producer
    if made is None:
        return None
    if made.op == "rms_norm" and made.attrs["num_heads"] == 1:
        norm = made.inputs.get("weight")
        # where what is stored is altered when it is read, it cannot be divided instead
        is_stored = norm is not None and norm.constant is not None and not norm.constant.is_altered
        return Fold("norm", norm.name) if norm is not None and is_stored else None
    if made.op == "mul":
        linear = made.inputs["y"].producer
        return _fold_rows(linear, "rows") if linear is not None and readers(made.inputs["y"]) == 1 else None
    if made.op == "attention":
        written = _writer(made)
        linear = written.inputs["v"].producer
        if linear is not None and readers(written.inputs["v"]) == 1:
            return _fold_rows(linear, "heads", made.attrs["num_heads"], made.attrs["num_kv_heads"])
    return None


def _fold_rows(linear: Node, kind: str, num_heads: int = 0, num_kv_heads: int = 0) -> Fold | None:
    if linear.op != "linear":
        return None
    bias = linear.inputs.get("bias")
    return Fold(kind, _tensor(linear), None if bias is None else bias.name, num_heads, num_kv_heads)
