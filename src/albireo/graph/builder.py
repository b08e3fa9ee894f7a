"""GraphBuilder: the tracing API models are written in. Each method adds one node and returns its value.

Used by models/ and by tests. Does not know weights' contents, devices or passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from albireo.errors import InvariantError
from albireo.graph.node import ConstantDef, Graph, Node, RowSegment, TensorType, Value
from albireo.graph.op_numbers import CONV_ACTIVATIONS, GATES
from albireo.graph.ops import RopeSpec, infer


class GraphBuilder:
    """Builds one Graph. The step inputs exist from the start: ids, positions, logit_rows, top_rows, kv; but for
    token_types, which few models read."""

    def __init__(self) -> None:
        self.graph = Graph()
        self._origin: list[str] = []
        self._counter = 0
        self.token_ids = self._input("token_ids", TensorType("int32", ("T",)))
        self.positions = self._input("positions", TensorType("int32", ("T",)))
        self.logit_rows = self._input("logit_rows", TensorType("int32", ("R",)))
        self.top_rows = self._input("top_rows", TensorType("int32", ("G",)))
        self.kv = self._input("kv", TensorType("kv", ()))

    @property
    def token_types(self) -> Value:
        """[T] int32: which of two texts each token is of."""
        known = self.graph.inputs.get("token_types")
        return known or self._input("token_types", TensorType("int32", ("T",)))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Nodes made inside carry name in their origin."""
        self._origin.append(name)
        try:
            yield
        finally:
            self._origin.pop()

    def weight(
        self,
        name: str,
        dims: tuple[int, ...],
        dtype: str,
        *,
        segments: tuple[RowSegment, ...] = (),
        plus: float = 0.0,
        factor: float = 1.0,
        is_absolute: bool = False,
    ) -> Value:
        """A checkpoint tensor as a constant; asking twice gives the same value (tied weights).

        Args:
            segments: rows of checkpoint tensors that it is made of instead, when it is none by itself.
            plus, factor, is_absolute: see ConstantDef.
        """
        known = self.graph.constants.get(name)
        if known is None:
            rows = segments or (RowSegment(name, 0, dims[0]),)
            definition = ConstantDef(rows, plus=plus, factor=factor, is_absolute=is_absolute)
            known = Value(name, TensorType(dtype, dims), constant=definition)
            self.graph.constants[name] = known
        elif known.type != TensorType(dtype, dims):
            raise InvariantError(f"weight {name} asked for as {dtype}{list(dims)}, was {known.type}")
        return known

    def embed(self, ids: Value, table: Value, never_given: bool = False) -> Value:
        """never_given: rows are the table's, also where the step gives one in place of an embedding."""
        attrs = {"never_given": True} if never_given else {}
        return self._node("embed", {"ids": ids, "table": table}, **attrs)[0]

    def given(self, width: int, place: int) -> Value:
        return self._node("given", {}, width=width, place=place)[0]

    def add_given(self, x: Value, place: int) -> Value:
        return self._node("add_given", {"x": x}, place=place)[0]

    def cast(self, x: Value, dtype: str) -> Value:
        return x if x.type.dtype == dtype else self._node("cast", {"x": x}, dtype=dtype)[0]

    def rms_norm(self, x: Value, weight: Value | None, eps: float, num_heads: int = 1) -> Value:
        """weight: of each of num_heads parts, or of the whole row."""
        return self._node("rms_norm", {"x": x, "weight": weight}, eps=eps, num_heads=num_heads)[0]

    def layer_norm(self, x: Value, weight: Value | None, bias: Value | None, eps: float, num_heads: int = 1) -> Value:
        """An rms_norm of x minus its mean, or of each head; weight and bias where there are any."""
        inputs = {"x": x, "weight": weight, "bias": bias}
        return self._node("rms_norm", inputs, eps=eps, num_heads=num_heads, centered=True)[0]

    def linear(self, x: Value, weight: Value, bias: Value | None = None, role: str | None = None) -> Value:
        """role: one of op_numbers.LINEAR_ROLES; None: a linear that is never cut."""
        inputs = {"x": x, "weight": weight, "bias": bias}
        return self._node("linear", inputs, **({} if role is None else {"role": role}))[0]

    def head_linear(self, x: Value, weight: Value, num_heads: int) -> Value:
        return self._node("head_linear", {"x": x, "weight": weight}, num_heads=num_heads)[0]

    def join_heads(self, x: Value, y: Value, num_heads: int) -> Value:
        return self._node("join_heads", {"x": x, "y": y}, num_heads=num_heads)[0]

    def add_parts(self, x: Value, y: Value, num_parts: int, coefs: Value | None, plus: float, first: int = 0) -> Value:
        """coefs: [T, num_parts * parts of y]; None: zeros."""
        inputs = {"x": x, "y": y, "coefs": coefs}
        return self._node("add_parts", inputs, num_parts=num_parts, first=first, plus=plus)[0]

    def match_length(self, x: Value, y: Value, least: float) -> Value:
        return self._node("match_length", {"x": x, "y": y}, least=least)[0]

    def cut(self, x: Value, deviations: float) -> Value:
        return self._node("cut", {"x": x}, deviations=deviations)[0]

    def gain(self, x: Value, weight: Value) -> Value:
        """weight: [columns] float32."""
        return self._node("gain", {"x": x, "weight": weight})[0]

    def shift(self, x: Value, weight: Value) -> Value:
        """weight: [columns] float32."""
        return self._node("shift", {"x": x, "weight": weight})[0]

    def experts(self, names: tuple[str, ...], name: str, dims: tuple[int, ...], dtype: str) -> Value:
        """One matrix or vector a name, all of dims, one below the other as one constant."""
        definition = ConstantDef(tuple(RowSegment(each, 0, dims[0]) for each in names))
        value = Value(name, TensorType(dtype, (len(names) * dims[0], *dims[1:])), constant=definition)
        return self.graph.constants.setdefault(name, value)

    def route(
        self,
        x: Value,
        top_k: int,
        renormalize: bool,
        bias: Value | None = None,
        gain: Value | None = None,
        chosen: Value | None = None,
        **rules: Any,
    ) -> tuple[Value, Value]:
        """chosen: ids as float32, [T, top_k]. rules: optional attributes that say something, see ops."""
        inputs = {"x": x, "bias": bias, "gain": gain, "chosen": chosen}
        ids, weights = self._node("route", inputs, top_k=top_k, renormalize=renormalize, **rules)
        return ids, weights

    def expert_linear(
        self, x: Value, ids: Value, weight: Value, num_experts: int, role: str | None, bias: Value | None = None
    ) -> Value:
        """weight, bias: of experts(); role: one of op_numbers.LINEAR_ROLES; None: ranks have all of it."""
        top_k, inputs = int(ids.type.dims[1]), {"x": x, "ids": ids, "weight": weight, "bias": bias}
        said = {} if role is None else {"role": role}
        return self._node("expert_linear", inputs, num_experts=num_experts, top_k=top_k, **said)[0]

    def combine(self, x: Value, weights: Value) -> Value:
        return self._node("combine", {"x": x, "weights": weights})[0]

    def given_back(self, x: Value, weights: Value, ids: Value, num_experts: int) -> Value:
        """What experts of num_experts and above give of x, [T, columns of x] float32."""
        return self._node("combine", {"x": x, "weights": weights, "ids": ids}, num_experts=num_experts)[0]

    def gate_rows(self, x: Value, gate: Value, kind: str = GATES[0]) -> Value:
        """gate: [T, parts] float32. kind: one of op_numbers.GATES."""
        said = {} if kind == GATES[0] else {"kind": kind}
        return self._node("gate_rows", {"x": x, "gate": gate}, **said)[0]

    def split(self, x: Value, sizes: tuple[int, ...]) -> tuple[Value, ...]:
        return self._node("split", {"x": x}, sizes=sizes)

    def rope(
        self,
        x: Value,
        rope: RopeSpec,
        num_heads: int,
        head_dim: int,
        grown: tuple[Value, Value] | None = None,
        side_by_side: bool = False,
    ) -> Value:
        """grown: [num_heads] float32 each: slope and start of what heads are multiplied by; ln(1) is position 0's."""
        inputs, said = {"x": x, "positions": self.positions}, dict[str, Any]()
        said |= {"side_by_side": True} if side_by_side else {}
        if grown is not None:
            inputs |= dict(zip(("slope", "start"), grown, strict=True))
            said["ahead"] = 1
        return self._node("rope", inputs, num_heads=num_heads, head_dim=head_dim, rope=rope, **said)[0]

    def kv_write(
        self, k: Value, v: Value | None, layer: int, num_kv_heads: int, head_dim: int, every: int = 1
    ) -> Value:
        """Write this step's keys and values; the builder's kv becomes the state after. v None: they are in k. every: so
        many positions have one entry."""
        inputs = {"k": k, "kv": self.kv, "v": v}
        said: dict[str, Any] = {"layer": layer, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
        self.kv = self._node("kv_write", inputs, **said, **({"every": every} if every > 1 else {}))[0]
        return self.kv

    def choose_keys(self, q: Value, weights: Value | None, **attrs: Any) -> Value:
        """attrs: layer, num_heads, head_dim, count; block and nearest where there are no weights; every and
        as_positions. weights: [T, num_heads] float32; None: see ops."""
        return self._node("choose_keys", {"q": q, "weights": weights, "kv": self.kv}, **attrs)[0]

    def attention(
        self,
        q: Value,
        sinks: Value | None = None,
        distances: Value | None = None,
        chosen: Value | None = None,
        by_columns: tuple[Value] | tuple[Value, Value] | None = None,
        **attrs: Any,
    ) -> Value:
        """chosen: positions that rows see, of choose_keys(); None: all that attrs leave. by_columns: from_rows, and
        from_keys where there is one, see ops."""
        inputs = {"q": q, "kv": self.kv, "sinks": sinks, "distances": distances, "chosen": chosen}
        inputs |= {} if by_columns is None else dict(zip(("from_rows", "from_keys"), by_columns, strict=False))
        return self._node("attention", inputs, **attrs)[0]

    def join_sums(self, x: Value, y: Value, sinks: Value, num_heads: int) -> Value:
        """x, y: of attentions that give sums. sinks: [num_heads] float32."""
        return self._node("join_sums", {"x": x, "y": y, "sinks": sinks}, num_heads=num_heads)[0]

    def pool_rows(self, x: Value, weighing: tuple[Value, Value] | None, every: int, series: int = 1) -> Value:
        """weighing: gates, as x, and places: [every, channels] float32; None: all rows count alike."""
        inputs = {"x": x} | ({} if weighing is None else dict(zip(("gates", "places"), weighing, strict=True)))
        return self._node("pool_rows", inputs, state=self._next_state(), every=every, series=series)[0]

    def balance(self, x: Value, rounds: int, eps: float) -> Value:
        return self._node("balance", {"x": x}, rounds=rounds, eps=eps)[0]

    def causal_conv(
        self, x: Value, weight: Value, bias: Value | None = None, activation: str = "silu", gated: bool = False
    ) -> Value:
        """activation: one of CONV_ACTIVATIONS; gated: x has what it and the result are multiplied by, too."""
        inputs = {"x": x, "weight": weight, "bias": bias}
        said: dict[str, Any] = {} if activation == CONV_ACTIVATIONS[0] else {"activation": activation}
        said |= {"gated": True} if gated else {}
        return self._node("causal_conv", inputs, state=self._next_state(), **said)[0]

    def depthwise_conv(
        self, x: Value, weight: Value, bias: Value | None = None, activation: str = CONV_ACTIVATIONS[0]
    ) -> Value:
        """activation: one of op_numbers.CONV_ACTIVATIONS."""
        inputs = {"x": x, "weight": weight, "bias": bias}
        said = {} if activation == CONV_ACTIVATIONS[0] else {"activation": activation}
        return self._node("depthwise_conv", inputs, **said)[0]

    def gated_delta_rule(
        self, x: Value, gates: Value, a_log: Value, dt_bias: Value, dt: Value | None = None, **attrs: Any
    ) -> Value:
        """attrs: num_k_heads, num_v_heads, k_dim, v_dim; learns_twice and most_decay where they say something.

        dt: of rates of channels.
        """
        inputs = {"x": x, "gates": gates, "dt": dt, "a_log": a_log, "dt_bias": dt_bias}
        return self._node("gated_delta_rule", inputs, state=self._next_state(), **attrs)[0]

    def selective_state(self, x: Value, dt: Value, a_log: Value, dt_bias: Value, skip: Value, **attrs: Any) -> Value:
        """attrs: num_k_heads, num_v_heads, k_dim, v_dim; dt_least and dt_most where they say something."""
        inputs = {"x": x, "dt": dt, "a_log": a_log, "dt_bias": dt_bias, "skip": skip}
        return self._node("selective_state", inputs, state=self._next_state(), **attrs)[0]

    def fading_state(self, x: Value, slopes: tuple[float, ...], **attrs: Any) -> Value:
        """selective_state of rows that count alike. attrs: num_k_heads, num_v_heads, k_dim, v_dim."""
        return self._node("selective_state", {"x": x}, state=self._next_state(), slopes=slopes, **attrs)[0]

    def selective_scan(self, x: Value, dt: Value, bc: Value, a_log: Value, dt_bias: Value, skip: Value) -> Value:
        inputs = {"x": x, "dt": dt, "bc": bc, "a_log": a_log, "dt_bias": dt_bias, "skip": skip}
        return self._node("selective_scan", inputs, state=self._next_state())[0]

    def add(self, x: Value, y: Value) -> Value:
        return self._node("add", {"x": x, "y": y})[0]

    def mul(self, x: Value, y: Value) -> Value:
        return self._node("mul", {"x": x, "y": y})[0]

    def clamped_swiglu(self, gate: Value, up: Value) -> Value:
        return self._node("clamped_swiglu", {"x": gate, "y": up})[0]

    def unary(self, x: Value, kind: str) -> Value:
        return self._node("unary", {"x": x}, kind=kind)[0]

    def scale(self, x: Value, factor: float) -> Value:
        return self._node("scale", {"x": x}, factor=factor)[0]

    def scale_by(self, x: Value, weight: Value) -> Value:
        """weight: [1] float32."""
        return self._node("scale_by", {"x": x, "weight": weight})[0]

    def clip(self, x: Value, most: float, above: bool = False) -> Value:
        """above: at that end alone."""
        return self._node("clip", {"x": x}, most=most, **({"above": True} if above else {}))[0]

    def clamp(self, x: Value, weight: Value) -> Value:
        """weight: [2] float32."""
        return self._node("clamp", {"x": x, "weight": weight})[0]

    def xielu(self, x: Value, weight: Value) -> Value:
        """weight: the two numbers that its sides are made of."""
        return self._node("xielu", {"x": x, "weight": weight})[0]

    def softcap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap)."""
        return self.scale(self.unary(self.scale(x, 1.0 / cap), "tanh"), cap)

    def gather_rows(self, x: Value, rows: Value) -> Value:
        return self._node("gather_rows", {"x": x, "rows": rows})[0]

    def top_logits(self, logits: Value) -> tuple[Value, Value]:
        ids, values = self._node("top_logits", {"logits": logits})
        return ids, values

    def finish(self, **outputs: Value) -> Graph:
        """Name the outputs and hand the graph over; the final kv state is added."""
        self.graph.outputs = {**outputs, "kv": self.kv}
        return self.graph

    def _next_state(self) -> int:
        """States are numbered in the order in which ops that keep one are made."""
        return len(self.graph.recurrent)

    def _input(self, name: str, type_: TensorType) -> Value:
        value = Value(name, type_)
        self.graph.inputs[name] = value
        return value

    def _node(self, op: str, given: Mapping[str, Value | None], **attrs: Any) -> tuple[Value, ...]:
        """Args: given: inputs by role; None: there is none of that role."""
        inputs = {role: value for role, value in given.items() if value is not None}
        types = infer(op, {role: v.type for role, v in inputs.items()}, attrs)
        node = Node(op, inputs, attrs, origin=".".join(self._origin))
        outputs = []
        for type_ in types:
            outputs.append(Value(str(self._counter), type_, producer=node))
            self._counter += 1
        node.outputs = tuple(outputs)
        self.graph.nodes.append(node)
        return node.outputs
