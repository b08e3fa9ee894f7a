"""Passes that choose the rows that are computed: rows_before_head and last_layer_rows; as test_passes.py."""

from __future__ import annotations

import pytest

from albireo.compiler.passes import last_layer_rows, rows_before_head
from compiler.examples import D, Decoder, E, F, H, Override, V, after, ops

# rows_before_head


def test_rows_are_taken_before_the_norm() -> None:
    graph, record = after(Decoder().graph(), rows_before_head)
    tail = [node for node in graph.nodes if node.origin == "head"]
    assert [n.op for n in tail] == ["gather_rows", "rms_norm", "cast"] * 2 + ["linear", "linear", "top_logits"]
    assert {v.type.dims[0] for n in tail for v in n.outputs} == {"R", "G"}
    assert record.fired == 1 and record.saved_bytes == {"T": 2 * E * (4 + 2)}


def test_rows_are_taken_behind_a_norm_that_all_rows_need() -> None:
    class Hidden(Decoder):
        def head(self, y):
            return super().head(y) | {"hidden": y}

    class Cut(Decoder):
        def head(self, y):
            return super().head(y) | {"gate": self.b.unary(y, "tanh")}

    for decoder, reason in ((Hidden, "by an output"), (Cut, "by unary")):
        graph, record = after(decoder().graph(), rows_before_head)
        assert not record.fired and len(record.refusals) == 2
        assert all(r.reason.endswith(f"is needed for all rows, {reason}") for r in record.refusals)
        assert ops(graph).count("rms_norm") == 3


# last_layer_rows


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_last_layer_goes_on_with_the_rows_that_leave(dtype: str, layers: int) -> None:
    graph, record = after(Decoder(dtype, layers, bias="gd").graph(), last_layer_rows)
    tail = graph.nodes[[n.op for n in graph.nodes].index("gather_rows") :]
    attention = [n for n in graph.nodes if n.op == "attention"][-1]
    start = graph.nodes.index(attention) + (2 if dtype == "bfloat16" else 1)
    assert graph.nodes[start] is tail[0]
    assert [n.op for n in tail if n.op not in ("cast", "rms_norm")] == [
        *("gather_rows", "gather_rows", "linear", "add", "linear", "split", "unary", "mul", "linear", "add"),
        *("gather_rows", "gather_rows", "linear", "linear", "top_logits"),
    ]
    rows = {n.inputs["rows"].name: n for n in tail if n.op == "gather_rows"}
    assert list(rows) == ["out_rows", "logit_pos", "top_pos"]
    assert {v.type.dims[0] for n in tail for v in n.outputs} == {"S", "R", "G"}
    assert tail[0].inputs["x"] is graph.nodes[start - 1].output and tail[0].output.type.dtype == dtype
    last = rows["top_pos"].inputs["x"]
    assert last is rows["logit_pos"].inputs["x"] and last.type.dims == ("S", E)
    norms = [n for n in Decoder(dtype, layers).graph().nodes if n.op == "rms_norm"]
    assert last.name == norms[-1].inputs["x"].name
    assert record.fired == 1 and not record.refusals and record.saved_ops == -2
    assert record.notes == [f"{E * H * D + 3 * E * F:,} weights multiply these rows only"]
    assert {n.origin.split(".")[1] for n in tail if n.origin.startswith("layers")} == {str(layers - 1)}


@pytest.mark.parametrize(("outputs", "ops_taken"), [("logits", ["logit_pos"]), ("top", ["top_pos"])])
def test_one_head_is_enough(outputs: str, ops_taken: list[str]) -> None:
    class OneHead(Decoder):
        def head(self, y):
            return {name: v for name, v in super().head(y).items() if name.startswith(outputs)}

    graph, record = after(OneHead().graph(), last_layer_rows)
    rows = [n.inputs["rows"].name for n in graph.nodes if n.op == "gather_rows"]
    assert record.fired == 1 and rows == ["out_rows", "out_rows", *ops_taken]


def test_rows_are_taken_as_early_as_nobody_else_needs_the_others() -> None:
    class Tapped(Override):
        def mlp(self, x, i):
            return super().mlp(self.tap(x), i)

    graph, record = after(Tapped().graph(), last_layer_rows)
    (gather,) = [n for n in graph.nodes if n.op == "gather_rows" and n.inputs["rows"].name == "out_rows"]
    assert gather.inputs["x"] is graph.outputs["tap0"] and record.fired == 1
    assert [n.inputs["weight"].name for n in graph.nodes if n.op == "linear" and n.output.type.dims[0] == "S"] == [
        "layers.0.g+u.weight",
        "layers.0.d.weight",
    ]


class Skipping(Decoder):
    """The head reads the embedding too, through an op that stands far in front of the last layer."""

    def graph(self):
        x = self.b.embed(self.b.token_ids, self.weight("table", V, E))
        early = self.b.unary(x, "tanh")
        y = self.b.add(self.mlp(self.attention(x, 0), 0), early)
        return self.b.finish(**self.head(self.norm(y, "norm")))


def test_an_op_far_in_front_of_the_rest_moves_behind_its_rows() -> None:
    graph, record = after(Skipping().graph(), last_layer_rows)
    gathers = [n for n in graph.nodes if n.op == "gather_rows" and n.inputs["rows"].name == "out_rows"]
    assert record.fired == 1 and [n.inputs["x"].producer.op for n in gathers] == ["embed", "cast"]
    assert graph.nodes.index(gathers[0]) > [n.op for n in graph.nodes].index("attention")


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        (lambda: Needed("stream"), "is needed for all rows, by an output"),
        (lambda: Needed("unary"), "is needed for all rows, by unary"),
        (lambda: Needed("rows"), "is needed for all rows, by gather_rows"),
        (lambda: Needed("down"), "is needed for all rows, by an output"),
        (lambda: Needed("gate"), "is needed for all rows, by an output"),
        (lambda: Needed("no mlp"), "is needed for all rows, by rms_norm"),
        (lambda: Needed("no layer"), "no linear lies between"),
    ],
)
def test_the_last_layer_is_left_alone(decoder, reason: str) -> None:
    graph, record = after(decoder().graph(), last_layer_rows)
    assert not record.fired and reason in record.refusals[0].reason
    assert all("gather_rows" in label for label in record.refusals[0].labels)
    assert not any("S" in v.type.dims for n in graph.nodes for v in n.outputs)


class Needed(Decoder):
    """Something else reads what the last layer computes, or the layer computes nothing."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.extra = what, {}

    def linear(self, x, name, rows):
        y = super().linear(x, name, rows)
        if (self.what, name) in (("down", "layers.0.d"), ("gate", "layers.0.g")):
            self.extra["extra"] = y
        return y

    def attention(self, x, i):
        y = x if self.what == "no layer" else super().attention(x, i)
        return x if self.what == "no mlp" else y

    def mlp(self, x, i):
        y = x if self.what in ("no mlp", "no layer") else super().mlp(x, i)
        if self.what == "stream":
            self.extra["extra"] = y
        elif self.what == "unary":
            self.extra["extra"] = self.b.unary(y, "tanh")
        elif self.what == "rows":
            self.extra["extra"] = self.b.gather_rows(y, self.b.positions)
        return y

    def head(self, y):
        return super().head(y) | self.extra
