"""Each pass: what it makes of the graph it is for, what it leaves alone, and what it says about near misses.

Those that choose rows: test_row_passes.py.
"""

from __future__ import annotations

import pytest

from albireo.compiler.passes import (
    canonicalize,
    fold_scale,
    fuse_attention_cast,
    fuse_embed,
    fuse_epilogue,
    fuse_gather,
    fuse_head,
    fuse_norm,
    fuse_qkv_rope_kv,
    merge_gate_up,
    merge_qkv,
    single_ops,
)
from albireo.compiler.pipeline import PASSES, run_passes
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, RowSegment
from albireo.graph.ops import RopeSpec
from compiler.examples import ROPE, D, Decoder, E, F, H, K, Override, after, ops


def only(graph: Graph, family: str) -> Node:
    (node,) = [n for n in graph.nodes if family in (n.family, n.op)]
    return node


def test_passes_are_named_after_their_files() -> None:
    _, records = run_passes(Decoder().graph())
    assert [r.name for r in records] == [run.__module__.rpartition(".")[2] for run in PASSES]
    assert all(r.why and r.numerics in ("exact", "reorder", "removes rounding") for r in records)


# canonicalize


def test_canonicalize_drops_what_changes_nothing() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "bfloat16"))
    b.unary(b.unary(x, "tanh"), "silu")  # nobody reads it
    narrow = b.cast(b.scale(x, 1.0), "bfloat16")
    again = b.cast(b.cast(narrow, "float32"), "bfloat16")
    (whole,) = b.split(again, (4,))
    graph, record = after(b.finish(y=whole), canonicalize)
    assert ops(graph) == ["embed", "cast"]
    assert graph.outputs["y"] is graph.nodes[1].output
    assert record.fired == 6 and record.saved_ops == 6


def test_canonicalize_keeps_a_rounding() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "bfloat16"))
    y = b.cast(b.cast(x, "bfloat16"), "float32")
    z = b.cast(b.cast(b.cast(x, "float16"), "float32"), "bfloat16")
    graph, record = after(b.finish(y=y, z=z), canonicalize)
    assert ops(graph).count("cast") == 5 and not record.fired


# fold_scale


def test_scales_multiply_and_enter_attention() -> None:
    class Scaled(Decoder):
        def rotate(self, q, k):
            q, k = super().rotate(q, k)
            return self.b.scale(self.b.scale(q, 3.0), 0.5), k

    graph, record = after(Scaled().graph(), fold_scale)
    assert "scale" not in ops(graph) and only(graph, "attention").attrs["scale"] == 0.25 * 1.5
    assert record.numerics == "reorder" and record.fired == 2 and record.saved_bytes == {"T": 2 * 2 * H * D * 4}


def test_a_scale_read_twice_stays() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "float32"))
    inner = b.scale(x, 2.0)
    graph, record = after(b.finish(y=b.add(b.scale(inner, 2.0), inner)), fold_scale)
    assert ops(graph).count("scale") == 2
    assert record.refusals[0].reason == f"%{inner.name} has 2 users"


# merge_qkv


def test_qkv_rows_are_joined_and_a_missing_bias_is_zero() -> None:
    graph, record = after(Decoder(bias="kv").graph(), merge_qkv)
    split = only(graph, "split")
    linear = split.inputs["x"].producer
    assert split.attrs["sizes"] == (H * D, K * D, K * D)
    weight, bias = linear.inputs["weight"], linear.inputs["bias"]
    assert weight.name == "layers.0.q+k+v.weight" and weight.type.dims == ((H + 2 * K) * D, E)
    assert weight.constant.segments == tuple(
        RowSegment(f"layers.0.{p}.weight", 0, n) for p, n in (("q", H * D), ("k", K * D), ("v", K * D))
    )
    assert bias.constant.segments[0] == RowSegment(None, 0, H * D) and bias.type.dtype == "float32"
    assert {"layers.0.q.weight", "layers.0.k.bias"}.isdisjoint(graph.constants)
    assert linear.origin == "layers.0.attn" and record.saved_ops == 1
    assert "bias" not in only(after(Decoder().graph(), merge_qkv)[0], "split").inputs["x"].producer.inputs


def test_qkv_already_one_linear_is_left_alone() -> None:
    class Packed(Decoder):
        def qkv(self, h, i):
            return self.b.split(self.linear(h, "layers.0.qkv", (H + 2 * K) * D), (H * D, K * D, K * D))

    _, record = after(Packed().graph(), merge_qkv)
    assert not record.fired and not record.refusals
    assert "qkv_rope_kv" in ops(after(Packed().graph(), fuse_qkv_rope_kv)[0])


def test_of_q_k_and_v_those_are_merged_that_agree() -> None:
    class TwoInputs(Decoder):
        def qkv(self, h, i):
            q, k, _ = super().qkv(h, i)
            return q, k, self.linear(self.b.cast(self.b.unary(h, "tanh"), self.dtype), "layers.0.w", K * D)

    class TwoTypes(Decoder):
        def weight(self, name, *dims):
            return self.b.weight(name, dims, "float16") if name == "layers.0.v.weight" else super().weight(name, *dims)

    class ThreeTypes(TwoTypes):
        def weight(self, name, *dims):
            return self.b.weight(name, dims, "float32") if name == "layers.0.k.weight" else super().weight(name, *dims)

    for decoder, reason in ((TwoInputs, "reads another input"), (TwoTypes, "weight is float16, the others bfloat16")):
        graph, record = after(decoder().graph(), merge_qkv)
        assert only(graph, "split").attrs["sizes"] == (H * D, K * D)
        assert only(graph, "split").inputs["x"].producer.inputs["weight"].name == "layers.0.q+k.weight"
        assert reason in record.refusals[0].reason and "stays alone" in record.refusals[0].reason
        _, record = after(graph, fuse_qkv_rope_kv)
        assert not record.fired and "no linear of the same 8-bit input" in record.refusals[0].reason
    _, record = after(ThreeTypes().graph(), merge_qkv)
    assert not record.fired and "weights differ in type" in record.refusals[0].reason


# merge_gate_up


@pytest.mark.parametrize("swapped", [False, True])
def test_gate_comes_before_up(swapped: bool) -> None:
    class Swapped(Decoder):
        def act(self, gate, up):
            act = self.b.unary(gate, "silu")
            return self.b.cast(self.b.mul(up, act) if swapped else self.b.mul(act, up), self.dtype)

    graph, record = after(Swapped().graph(), merge_gate_up)
    splits = [n for n in graph.nodes if n.op == "split" and n.attrs["sizes"] == (F, F)]
    assert len(splits) == 1 and record.fired == 1
    assert splits[0].inputs["x"].producer.inputs["weight"].constant.sources == (
        "layers.0.g.weight",
        "layers.0.u.weight",
    )


def test_gate_read_twice_is_not_merged() -> None:
    class Twice(Decoder):
        def act(self, gate, up):
            return self.b.cast(self.b.mul(self.b.unary(gate, "silu"), self.b.add(up, gate)), self.dtype)

    class TwoReaders(Decoder):
        def mlp(self, x, i):
            self.extra = None
            return super().mlp(x, i)

        def act(self, gate, up):
            self.extra = self.b.scale(up, 2.0)
            return super().act(gate, up)

        def head(self, y):
            return super().head(y) | {"extra": self.extra}

    assert not after(Twice().graph(), merge_gate_up)[1].fired
    _, record = after(TwoReaders().graph(), merge_gate_up)
    assert not record.fired and record.refusals[0].reason.endswith("has 2 users")
    assert any("unary" in label for label in record.refusals[0].labels)


# fuse_qkv_rope_kv


class HeadNorms(Decoder):
    """Qwen 3's norms; eps of k's and which of them there are may differ."""

    def __init__(self, which: str = "qk", k_eps: float = 1e-6) -> None:
        super().__init__(bias="q")
        self.which, self.k_eps = which, k_eps

    def qkv(self, h, i):
        q, k, v = super().qkv(h, i)
        if "q" in self.which:
            q = self.b.rms_norm(q, self.weight(f"layers.{i}.qn", D), 1e-6, H)
        if "k" in self.which:
            k = self.b.rms_norm(k, self.weight(f"layers.{i}.kn", D), self.k_eps, K)
        return q, k, v


def test_qkv_rope_kv_takes_everything_between_linear_and_cache() -> None:
    graph, record = after(HeadNorms().graph(), fuse_qkv_rope_kv)
    node = only(graph, "qkv_rope_kv")
    assert list(node.inputs) == ["x", "weight", "bias", "q_norm", "k_norm", "positions", "kv"]
    shape = {"layer": 0, "num_heads": H, "num_kv_heads": K, "head_dim": D}
    assert node.attrs == shape | {"eps": 1e-6, "rope": ROPE}
    assert [v.type.dtype for v in node.outputs] == ["bfloat16", "kv"]
    assert node.outputs[1] is graph.outputs["kv"]
    assert {n.op for n in node.body.nodes} == {"linear", "split", "rms_norm", "rope", "cast", "kv_write"}
    assert record.fired == 1 and not record.refusals
    plain = only(after(Decoder("float32").graph(), fuse_qkv_rope_kv)[0], "qkv_rope_kv")
    assert plain.attrs["eps"] == 0.0 and "bias" not in plain.inputs and "q_norm" not in plain.inputs


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        (lambda: HeadNorms("q"), "only one of q and k has a norm"),
        (lambda: HeadNorms("qk", k_eps=1e-5), "differ in eps"),
        (lambda: Override(rotate=lambda s, q, k: (q, k)), "the kernel rotates q and k"),
        (lambda: Override(rotate=lambda s, q, k: (q, s.b.rope(k, ROPE, K, D))), "only one of q and k has a rope"),
        (
            lambda: Override(rotate=lambda s, q, k: (s.b.rope(q, RopeSpec((1.0,) * 4), H, D), s.b.rope(k, ROPE, K, D))),
            "rotated differently",
        ),
        (
            lambda: Override(rotate=lambda s, q, k: (s.b.rope(q, ROPE, H, D), s.tap(s.b.rope(k, ROPE, K, D)))),
            "is an output of the graph",
        ),
        (
            lambda: Override(
                rotate=lambda s, q, k: (s.b.rope(q, ROPE, H, D), s.b.cast(s.b.rope(k, ROPE, K, D), "float16"))
            ),
            "rounded to float16 before it is stored as bfloat16",
        ),
    ],
)
def test_qkv_rope_kv_refuses(decoder, reason: str) -> None:
    graph, record = after(decoder().graph(), fuse_qkv_rope_kv)
    assert not record.fired and "qkv_rope_kv" not in ops(graph)
    assert reason in record.refusals[0].reason
    assert record.refusals[0].labels[0].startswith("layers.0.attn: kv_write")


def test_a_cast_to_the_stored_type_is_what_kv_write_does_itself() -> None:
    decoder = Override(rotate=lambda s, q, k: (s.b.rope(q, ROPE, H, D), s.b.cast(s.b.rope(k, ROPE, K, D), "bfloat16")))
    assert after(decoder.graph(), fuse_qkv_rope_kv)[1].fired == 1


# fuse_norm


def test_norm_takes_cast_and_rows() -> None:
    graph, record = after(Decoder().graph(), fuse_norm)
    rows = [n.inputs["rows"].name for n in graph.nodes if "rows" in n.inputs]
    assert rows == ["out_rows", "out_rows", "logit_pos", "top_pos"]
    norms = [node for node in graph.nodes if node.family == "norm"]
    assert [list(n.inputs) for n in norms] == [["x", "weight"]] * 2 + [["x", "weight", "rows"]] * 2
    assert {n.output.type.dtype for n in norms} == {"bfloat16"} and record.fired == 4
    assert [n.op for n in norms[-1].body.nodes] == ["gather_rows", "rms_norm", "cast"]
    graph, _ = after(Decoder("float32").graph(), fuse_norm)
    assert [n.output.type.dtype for n in graph.nodes if n.family == "norm"] == ["float32"] * 4


def test_a_head_norm_is_not_a_norm() -> None:
    graph, record = after(HeadNorms("q").graph(), fuse_norm)
    assert ops(graph).count("rms_norm") == 1 and not record.refusals


def test_norm_whose_unrounded_value_is_read_is_not_fused() -> None:
    class Tapped(Override):
        def norm(self, x, name):
            y = self.b.rms_norm(x, self.weight(name, E), 1e-5)
            return self.b.cast(self.tap(y) if name == "layers.0.norm2" else y, self.dtype)

    graph, record = after(Tapped().graph(), fuse_norm)
    assert record.fired == 3 and ops(graph).count("rms_norm") == 1
    assert record.refusals[0].reason.endswith("is an output of the graph")


# fuse_gather


def test_gathers_that_no_norm_took() -> None:
    class Tapped(Override):
        """A norm and an add read the same gathered rows."""

        def mlp(self, x, i):
            return super().mlp(self.tap(x), i)

    graph, record = after(Tapped().graph(), fuse_gather)
    gathers = [n for n in graph.nodes if n.family == "gather"]
    assert [len([u for u in graph.nodes if n.output in u.inputs.values()]) for n in gathers] == [2]
    assert record.fired == 1 and "gather_rows" not in ops(graph) and "rms_norm" not in ops(graph)
    assert (gathers[0].attrs, list(gathers[0].inputs)) == ({}, ["x", "rows"])


# fuse_head


def test_head_and_arg_max() -> None:
    graph, record = after(Decoder(tied=False).graph(), fuse_head)
    node = only(graph, "head_top")
    assert node.inputs["weight"].name == "head" and node.attrs == {"n": 70, "k": E}
    assert [v.type.dtype for v in node.outputs] == ["int32", "float32"] and record.saved_bytes == {"G": 2 * 4 * 70}


def test_head_with_bias_or_with_logits_wanted_too() -> None:
    class Biased(Decoder):
        def head(self, y):
            logits = self.linear(self.b.gather_rows(y, self.b.top_rows), "h", 9)
            return dict(zip(("ids", "values"), self.b.top_logits(logits), strict=True))

    class Both(Decoder):
        def head(self, y):
            logits = self.linear(self.b.gather_rows(y, self.b.top_rows), "h", 9)
            return {"logits": logits, **dict(zip(("ids", "values"), self.b.top_logits(logits), strict=True))}

    for decoder, reason in ((Biased(bias="h"), "the head has a bias"), (Both(), "is an output of the graph")):
        _, record = after(decoder.graph(), fuse_head)
        assert not record.fired and record.refusals[0].reason.endswith(reason)


# fuse_epilogue


def test_epilogues() -> None:
    graph, record = after(Decoder(bias="ogd").graph(), fuse_epilogue)
    linears = [node for node in graph.nodes if node.family == "linear"]
    assert [(n.attrs["act"], n.attrs["n"], n.attrs["k"]) for n in linears] == [
        ("none", E, H * D),
        ("silu_mul", F, E),
        ("none", E, F),
        ("none", 70, E),
    ]
    assert [sorted(set(n.inputs) - {"x", "weight"}) for n in linears] == [
        ["bias", "residual"],
        ["bias"],
        ["bias", "residual"],
        [],
    ]
    assert [n.output.type.dtype for n in linears] == ["float32", "bfloat16", "float32", "float32"]
    assert "linear" not in [n.op for n in graph.nodes] and not record.refusals


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda s, g, u: s.b.cast(s.b.mul(s.b.unary(g, "relu2"), u), s.dtype), "relu2_mul"),
        (lambda s, g, u: s.b.mul(s.b.unary(g, "silu"), u), "is float32, the compute type is bfloat16"),
        (lambda s, g, u: s.b.cast(s.tap(s.b.mul(s.b.unary(g, "silu"), u)), s.dtype), "is an output of the graph"),
    ],
)
def test_gated_activations_that_no_kernel_has(act, reason: str) -> None:
    class Widened(Override):
        def linear(self, x, name, rows):
            if name == "layers.0.d":
                return self.b.linear(x, self.b.weight(name, (rows, F), x.type.dtype))
            return super().linear(x, name, rows)

    graph, record = after(Widened(act=act).graph(), fuse_epilogue)
    assert any(reason in refusal.reason for refusal in record.refusals)
    assert "unary" in [n.op for n in graph.nodes]


def test_gelu_tanh_has_a_kernel_too() -> None:
    decoder = Override(act=lambda s, g, u: s.b.cast(s.b.mul(s.b.unary(g, "gelu_tanh"), u), s.dtype))
    graph, _ = after(decoder.graph(), fuse_epilogue)
    assert "gelu_tanh_mul" in [n.attrs.get("act") for n in graph.nodes]


def test_a_linear_that_is_read_twice_keeps_its_add() -> None:
    class Tapped(Override):
        def linear(self, x, name, rows):
            y = super().linear(x, name, rows)
            return self.tap(y) if name == "layers.0.o" else y

    graph, record = after(Tapped().graph(), fuse_epilogue)
    assert "add" in [n.op for n in graph.nodes]
    assert record.refusals[0].labels[1].startswith("layers.0.attn: add")


# fuse_attention_cast, fuse_embed


def test_attention_rounds_its_result() -> None:
    class Windowed(Decoder):
        def attend(self, q, i, **attrs):
            return super().attend(q, i, window=7, softcap=30.0)

    graph, record = after(Decoder().graph(), fuse_attention_cast)
    node = only(graph, "attention")
    assert node.output.type.dtype == "bfloat16" and record.saved_bytes == {"T": 2 * 4 * H * D}
    assert (node.attrs["window"], node.attrs["softcap"]) == (0, 0.0)
    assert node.body.nodes[0].attrs["window"] is None
    windowed = only(after(Windowed().graph(), fuse_attention_cast)[0], "attention")
    assert (windowed.attrs["window"], windowed.attrs["softcap"]) == (7, 30.0)


def test_attention_in_another_type_than_its_query_is_refused() -> None:
    class Wide(Decoder):
        def attention(self, x, i):
            q, k, v = self.qkv(self.norm(x, "layers.0.norm1"), i)
            self.b.kv_write(k, v, i, K, D)
            return self.b.add(x, self.b.linear(self.attend(self.b.cast(q, self.dtype), i), self.weight("o", E, H * D)))

    _, record = after(Wide().graph(), fuse_attention_cast)
    assert not record.fired and "is float32, the query is bfloat16" in record.refusals[0].reason


def test_embed() -> None:
    graph, record = after(Decoder().graph(), fuse_embed)
    assert only(graph, "embed").attrs == {"width": E} and record.fired == 1
    assert all(node.family for node in graph.nodes)


def test_an_embedding_of_the_table_alone_says_so() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("t", (7, E), "float32"), never_given=True)
    graph, _ = after(b.finish(hidden=b.gather_rows(x, b.logit_rows)), fuse_embed)
    assert only(graph, "embed").attrs == {"width": E, "never_given": True}


# single_ops


def test_bounds_and_the_rounding_behind_them_are_one_call() -> None:
    """Where nobody reads what was not rounded."""

    def graph_of(reads_both: bool) -> Graph:
        b = GraphBuilder()
        x = b.clamp(b.given(E, 0), b.weight("ends", (2,), "float32"))
        y = b.linear(b.cast(x, "bfloat16"), b.weight("w", (E, E), "bfloat16"))
        y = b.add(x, y) if reads_both else y
        return b.finish(hidden=b.gather_rows(y, b.logit_rows))

    for reads_both, kinds in ((False, ["clamp"]), (True, ["clamp", "cast"])):
        graph, _ = after(graph_of(reads_both), single_ops)
        found = [node for node in graph.nodes if node.family == "elementwise"]
        assert [node.attrs["kind"] for node in found] == kinds
        assert found[-1].output.type.dtype == "bfloat16"
