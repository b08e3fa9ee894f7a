"""Small graphs with the compiler's shapes and near misses of them, and a catalog without kernels.

Used by the tests of graph/ and compiler/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.backends.backend import Variant
from albireo.compiler.pipeline import PASSES, run_passes
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.graph.program_spec import FAMILIES
from albireo.graph.report import PassRecord
from albireo.graph.spec import check_graph
from albireo.models.config_keys import parse_config
from variants import architecture_of, tiny_of

MAXIMA = {"T": 32, "R": 5, "G": 3}
#: What the compiler makes of them.
ALL_MAXIMA = {**MAXIMA, "S": 8}
BLOCK_SIZE = 4
MAX_POSITIONS = 64
E, H, K, D, F, V = 24, 4, 2, 8, 40, 70
ROPE = RopeSpec(tuple(10000.0 ** (-2 * i / D) for i in range(D // 2)))


def spelled(graph: Graph) -> tuple[Any, ...]:
    """All that a graph says: two of one spelling compute the same."""
    nodes = [
        (
            (node.op, node.family, dict(node.attrs), node.body and spelled(node.body)),
            {role: (value.name, value.type, value.constant) for role, value in node.inputs.items()},
            [(value.name, value.type) for value in node.outputs],
        )
        for node in graph.nodes
    ]
    return nodes, {name: value.name for name, value in graph.outputs.items()}


class FakeCatalog:
    """A kernel for every family; refused ones have none."""

    abilities: frozenset[str] = frozenset()

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def variants(self, family: str, dtype: str, attrs: Mapping[str, Any]) -> tuple[Variant, ...]:
        self.asked.append((family, dtype, dict(attrs)))
        if family == self.refused:
            return ()
        if family == "embed":
            return tuple(Variant(f"embed.{dtype}.{kind}", "rows", f"{kind}.{dtype}") for kind in ("row", "p64"))
        if FAMILIES[family].weight is None or family in ("norm", "head_norm"):
            return (Variant(f"{family}.{dtype}.fake", "heads" if family == "attention" else "rows"),)
        best = Variant(f"{family}.{dtype}.fake", "panels", f"p64.{dtype}")
        return best, Variant(f"{family}.{dtype}.slow", "panels", f"row.{dtype}")


class Decoder:
    """A decoder of some layers, whose parts a test may replace by overriding a method."""

    def __init__(self, dtype: str = "bfloat16", layers: int = 1, tied: bool = True, bias: str = "") -> None:
        self.b = GraphBuilder()
        self.dtype, self.layers, self.tied, self.bias = dtype, layers, tied, bias

    def weight(self, name: str, *dims: int) -> Value:
        return self.b.weight(name, dims, self.dtype if len(dims) == 2 else "float32")

    def linear(self, x: Value, name: str, rows: int) -> Value:
        with self.b.part(name.rpartition(".")[2]):
            bias = self.weight(f"{name}.bias", rows) if name[-1] in self.bias else None
            return self.b.linear(x, self.weight(f"{name}.weight", rows, int(x.type.dims[1])), bias)

    def norm(self, x: Value, name: str) -> Value:
        return self.b.cast(self.b.rms_norm(x, self.weight(name, E), 1e-5), self.dtype)

    def qkv(self, h: Value, i: int) -> tuple[Value, Value, Value]:
        return (
            self.linear(h, f"layers.{i}.q", H * D),
            self.linear(h, f"layers.{i}.k", K * D),
            self.linear(h, f"layers.{i}.v", K * D),
        )

    def rotate(self, q: Value, k: Value) -> tuple[Value, Value]:
        return self.b.rope(q, ROPE, H, D), self.b.rope(k, ROPE, K, D)

    def attend(self, q: Value, i: int, **attrs: Any) -> Value:
        attrs = {"scale": 0.25, "window": None, "softcap": None} | attrs
        return self.b.attention(q, layer=i, num_heads=H, num_kv_heads=K, head_dim=D, **attrs)

    def attention(self, x: Value, i: int) -> Value:
        q, k, v = self.qkv(self.norm(x, f"layers.{i}.norm1"), i)
        q, k = self.rotate(q, k)
        self.b.kv_write(k, v, i, K, D)
        a = self.b.cast(self.attend(self.b.cast(q, self.dtype), i), self.dtype)
        return self.b.add(x, self.linear(a, f"layers.{i}.o", E))

    def act(self, gate: Value, up: Value) -> Value:
        return self.b.cast(self.b.mul(self.b.unary(gate, "silu"), up), self.dtype)

    def mlp(self, x: Value, i: int) -> Value:
        h = self.norm(x, f"layers.{i}.norm2")
        m = self.act(self.linear(h, f"layers.{i}.g", F), self.linear(h, f"layers.{i}.u", F))
        return self.b.add(x, self.linear(m, f"layers.{i}.d", E))

    def head(self, y: Value) -> dict[str, Value]:
        weight = self.weight("table", V, E) if self.tied else self.weight("head", V, E)
        logits = self.b.linear(self.b.gather_rows(y, self.b.logit_rows), weight)
        ids, values = self.b.top_logits(self.b.linear(self.b.gather_rows(y, self.b.top_rows), weight))
        return {"logits": logits, "top_ids": ids, "top_values": values}

    def graph(self) -> Graph:
        x = self.b.embed(self.b.token_ids, self.weight("table", V, E))
        for i in range(self.layers):
            with self.b.part(f"layers.{i}.attn"):
                x = self.attention(x, i)
            with self.b.part(f"layers.{i}.mlp"):
                x = self.mlp(x, i)
        with self.b.part("head"):
            return self.b.finish(**self.head(self.norm(x, "norm")))


def model_graph(model_type: str, dtype: str) -> Graph:
    """The graph of a tiny config, see variants.py."""
    architecture = architecture_of(model_type)
    config = parse_config(tiny_of(model_type), architecture.rules).with_dtype(dtype)
    return architecture.build(config, MAX_POSITIONS)


class Override(Decoder):
    """A decoder with methods replaced by functions; tap makes a value an output."""

    def __init__(self, **methods) -> None:
        super().__init__()
        self.methods, self.taps = methods, {}

    def rotate(self, q, k):
        return self.methods["rotate"](self, q, k) if "rotate" in self.methods else super().rotate(q, k)

    def act(self, gate, up):
        return self.methods["act"](self, gate, up) if "act" in self.methods else super().act(gate, up)

    def tap(self, value):
        self.taps[f"tap{len(self.taps)}"] = value
        return value

    def head(self, y):
        return super().head(y) | self.taps


def after(graph: Graph, last: object) -> tuple[Graph, PassRecord]:
    """The graph behind the passes up to and with last, and last's record."""
    wanted = [run for run in PASSES if PASSES.index(run) <= PASSES.index(last.run)]
    graph, records = run_passes(graph, wanted, after=lambda g, _: check_graph(g))
    return graph, records[-1]


def ops(graph: Graph) -> list[str]:
    return [node.family or node.op for node in graph.nodes]
