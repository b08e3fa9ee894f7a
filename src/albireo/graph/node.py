"""Graph, Node and Value: what is to be computed, in SSA form.

Written by models/ through builder.py, rewritten by compiler/passes, run by backends/reference, lowered to a
graph.program.Program. Knows neither devices nor models nor arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

#: A dimension is a whole number or the name of a step symbol:
#: T tokens in the step, R rows whose full logits are wanted, G rows whose arg max is wanted, S = R + G rows that leave
#: the model; P = T * top_k pairs of a token and one of its experts, pair t * top_k + j being token t's j-th choice, in
#: graphs that route. Models are written with all but S, which a pass brings in.
Dim = int | str
SYMBOLS = ("T", "R", "G", "S", "P")


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type (albireo.dtypes name) and dims. The KV cache is the one value of dtype "kv"."""

    dtype: str
    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.dims))}]"


#: Of a node's inputs, by role; and its attributes.
Types = Mapping[str, TensorType]
Attrs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowSegment:
    """Rows start..stop of dim 0 of a checkpoint tensor; source None means that many rows of zeros."""

    source: str | None
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ConstantDef:
    """How a constant is made from the checkpoint: its rows, top to bottom.

    One definition serves a plain weight (one segment) and merged or interleaved ones (many), so that
    merging never copies a weight: whoever packs reads the rows where they lie.

    Fields:
        columns: first and end of the columns taken of every row (a rank's part); None: all.
        plus, factor: a number of a vector is (what is stored + plus) * factor, both in float32; zeros stay zeros.
        is_absolute: of what is stored its absolute value is meant.
    """

    segments: tuple[RowSegment, ...]
    columns: tuple[int, int] | None = None
    plus: float = 0.0
    factor: float = 1.0
    is_absolute: bool = False

    @property
    def is_altered(self) -> bool:
        """Whether its numbers are not those that are stored."""
        return self.is_absolute or (self.plus, self.factor) != (0.0, 1.0)

    @property
    def num_rows(self) -> int:
        return sum(len(segment) for segment in self.segments)

    def rows(self, start: int, stop: int) -> ConstantDef:
        """Rows start..stop of it."""
        found, offset = [], 0
        for segment in self.segments:
            low, high = max(start - offset, 0), min(stop - offset, len(segment))
            if low < high:
                found.append(RowSegment(segment.source, segment.start + low, segment.start + high))
            offset += len(segment)
        return replace(self, segments=tuple(found))

    def blocks(self, count: int) -> list[ConstantDef]:
        """Its rows as so many blocks of equal height, such as the matrices of experts. Cost: O(segments + count)."""
        height = self.num_rows // count
        found: list[list[RowSegment]] = [[] for _ in range(count)]
        offset = 0
        for segment in self.segments:
            start = segment.start
            while start < segment.stop:
                stop = min(segment.stop, start + height - offset % height)
                found[offset // height].append(RowSegment(segment.source, start, stop))
                offset, start = offset + stop - start, stop
        return [ConstantDef(tuple(segments), self.columns) for segments in found]

    def rows_of(self, spans: Sequence[tuple[int, int]], count: int = 1) -> ConstantDef:
        """Rows of several spans, one below the other; of each of count blocks of equal height."""
        blocks = [self] if count == 1 else self.blocks(count)
        return replace(self, segments=tuple(s for b in blocks for span in spans for s in b.rows(*span).segments))

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the checkpoint tensors used, each once, in order of first use."""
        return tuple(dict.fromkeys(s.source for s in self.segments if s.source is not None))


@dataclass(eq=False, repr=False, slots=True)
class Value:
    """One value: a graph input, a constant, or an output of a node. Identity is the object."""

    name: str
    type: TensorType
    producer: Node | None = None
    constant: ConstantDef | None = None

    @property
    def is_constant(self) -> bool:
        return self.constant is not None

    def __str__(self) -> str:
        return f"%{self.name}"

    def __repr__(self) -> str:
        # of the fields' own, each value would tell its producer, and that its inputs: as many lines as there are paths
        return f"<Value %{self.name}: {self.type}>"


@dataclass(eq=False, repr=False, slots=True)
class Node:
    """One operation.

    Fields:
        op: a key of ops.OPS, or "fused".
        inputs: by role, in the op's order; optional roles are absent, not None.
        attrs: constants of the op: numbers, strings, tuples, RopeSpec.
        outputs: in the op's order.
        origin: path of the model part it came from, such as layers.3.attn.o; for reports.
        body: for op "fused" only: the base ops it stands for, as a Graph whose inputs carry the roles' names.
        family: for op "fused" only: the kernel family that performs it.
    """

    op: str
    inputs: dict[str, Value]
    attrs: dict[str, Any]
    outputs: tuple[Value, ...] = ()
    origin: str = ""
    body: Graph | None = None
    family: str | None = None

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    def __str__(self) -> str:
        # lists: every op that a pass replaces is told to the report
        outs = ", ".join([f"%{v.name}: {v.type}" for v in self.outputs])
        roles = ", ".join([f"{role}=%{v.name}" for role, v in self.inputs.items()])
        name = self.family if self.op == "fused" else self.op
        attrs = "".join([f", {k}={_short(v)}" for k, v in self.attrs.items()])
        return f"{outs} = {name}({roles}{attrs})"

    def __repr__(self) -> str:
        return f"<Node {self}>"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(eq=False, repr=False, slots=True)
class Graph:
    """Nodes in an order in which they can run.

    inputs: step arrays (program_spec.STEP_ARRAYS) and state (kv) by name.
    constants: by name. outputs: by name (logits, top_ids, top_logits, kv).
    """

    inputs: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, Value] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes)} nodes: {', '.join(self.inputs)} -> {', '.join(self.outputs)}>"

    def users(self) -> Mapping[Value, list[Node]]:
        """value -> nodes that read it, in order; values nobody reads are absent."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs.values()):
                users.setdefault(value, []).append(node)
        return users

    def values(self) -> Iterator[Value]:
        """Inputs, constants and node outputs, in order of definition."""
        yield from self.inputs.values()
        yield from self.constants.values()
        for node in self.nodes:
            yield from node.outputs

    @property
    def top_k(self) -> int:
        """Experts of a token, what P is counted by; 0 where nothing is routed. Layers agree, see graph.spec."""
        return next((int(node.attrs["top_k"]) for node in self.nodes if "top_k" in node.attrs), 0)

    @property
    def recurrent(self) -> list[Node]:
        """Nodes that keep a state of each sequence, in order; of a fused one its family says so, too."""
        return [node for node in self.nodes if "state" in node.attrs]

    def is_output(self, value: Value) -> bool:
        return any(v is value for v in self.outputs.values())

    def drop_unused_constants(self) -> None:
        """Forget constants no node reads; passes call it after a rewrite."""
        used: set[Value] = set()
        for node in self.nodes:
            used.update(node.inputs.values())
        self.constants = {name: v for name, v in self.constants.items() if v in used}
