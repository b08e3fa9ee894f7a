"""GraphBuilder and the type rules of ops."""

from __future__ import annotations

import pytest

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import ConstantDef, RowSegment, TensorType
from albireo.graph.ops import OPS, RopeSpec, infer
from albireo.graph.spec import check_graph


def test_a_weight_asked_for_twice_is_one() -> None:
    b = GraphBuilder()
    assert b.weight("w", (4, 2), "float16") is b.weight("w", (4, 2), "float16")
    with pytest.raises(InvariantError, match=r"weight w asked for as float16\[4, 3\], was float16\[4, 2\]"):
        b.weight("w", (4, 3), "float16")


def test_origins_nest_and_states_chain() -> None:
    b = GraphBuilder()
    with b.part("layers.0"), b.part("attn"):
        x = b.embed(b.token_ids, b.weight("table", (8, 4), "float32"))
        first = b.kv_write(x, x, 0, 1, 4)
    second = b.kv_write(x, x, 1, 1, 4)
    graph = b.finish(x=x)
    assert [node.origin for node in graph.nodes] == ["layers.0.attn"] * 2 + [""]
    assert second.producer.inputs["kv"] is first and graph.outputs == {"x": x, "kv": second}
    check_graph(graph)


def test_a_cast_to_the_same_type_is_no_op() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "bfloat16"))
    assert b.cast(x, "float32") is x and b.cast(x, "bfloat16").type == TensorType("bfloat16", ("T", 4))


def test_what_a_debugger_shows_is_short() -> None:
    """Each sum reads the last one twice: told with its inputs, the last value would be 2 to the power of 40 lines."""
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "float32"))
    for _ in range(40):
        x = b.add(x, x)
    graph = b.finish(x=x)
    assert repr(x) == f"<Value %{x.name}: float32[T, 4]>"
    assert repr(x.producer) == f"<Node {x.producer}>"
    assert repr(graph) == "<Graph of 41 nodes: token_ids, positions, logit_rows, top_rows, kv -> x, kv>"


def f32(*dims: int | str) -> TensorType:
    return TensorType("float32", dims)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("sort", {}, {}, "unknown op"),
        ("add", {"x": f32("T", 4)}, {}, r"roles missing \['y'\]"),
        ("add", {"x": f32("T", 4), "y": f32("T", 5)}, {}, "operands differ"),
        ("mul", {"x": f32("T", 4), "y": f32("R", 4)}, {}, "operands differ"),
        ("cast", {"x": f32("T", 4)}, {}, "wanted"),
        ("linear", {"x": f32("T", 4), "weight": f32(3, 5)}, {}, "inner dims differ"),
        ("linear", {"x": f32("T", 4), "weight": f32(3, 4), "bias": f32(4)}, {}, "does not fit weight"),
        ("split", {"x": f32("T", 4)}, {"sizes": (1, 2)}, "do not add up"),
        ("all_reduce", {"x": f32("T", 4)}, {}, "wanted"),
        ("all_reduce", {"x": f32("T", 4), "bias": f32(3)}, {"ranks": 2}, "does not fit"),
        ("linear", {"x": f32("T", 4), "weight": f32(3, 4)}, {"n": 3}, "wanted"),
        ("route", {"x": f32("T", 4)}, {"top_k": 1, "renormalize": True, "eps": 0.1}, "the sum that sigmoids are"),
        ("route", {"x": f32("T", 4)}, {"top_k": 1, "renormalize": True, "margin": 0.1}, "of a softmax, as they are"),
        (
            "route",
            {"x": f32("T", 4), "bias": f32(4)},
            {"top_k": 1, "renormalize": False, "margin": 0.1},
            "of a softmax, as they are",
        ),
        ("causal_conv", {"x": f32("T", 4), "weight": f32(4, 9)}, {"state": 0}, "2 to 8 numbers a channel"),
        ("causal_conv", {"x": f32("T", 4), "weight": f32(4, 3), "bias": f32(3)}, {"state": 0}, r"bias float32\[3\]"),
        ("causal_conv", {"x": f32("T", 4), "weight": f32(4, 3)}, {"state": 0, "gated": True}, "wanted T rows of 3 x 4"),
        ("balance", {"x": f32("T", 8)}, {"rounds": 1, "eps": 0.0}, "matrices of 2 to 16 rows"),
        ("balance", {"x": f32("T", 9)}, {"rounds": 2**40, "eps": 0.0}, "1099511627776 rounds: wanted at most 1024"),
    ],
)
def test_what_does_not_fit_is_refused(op: str, inputs: dict[str, TensorType], attrs: dict, message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        infer(op, inputs, attrs)


def test_types_that_come_out() -> None:
    x, rows = TensorType("bfloat16", ("T", 4)), TensorType("int32", ("R",))
    assert infer("linear", {"x": x, "weight": TensorType("bfloat16", (3, 4))}, {}) == (f32("T", 3),)
    assert infer("gather_rows", {"x": x, "rows": rows}, {}) == (TensorType("bfloat16", ("R", 4)),)
    assert infer("linear", {"x": f32("T", 4), "weight": f32(3, 4)}, {"role": "row", "chunks": 2}) == (f32("T", 3),)
    assert infer("all_reduce", {"x": f32("T", 4), "bias": f32(4)}, {"ranks": 2}) == (f32("T", 4),)
    assert infer("split", {"x": f32("T", 4)}, {"sizes": (1, 3)}) == (f32("T", 1), f32("T", 3))
    assert infer("top_logits", {"logits": f32("G", 9)}, {}) == (TensorType("int32", ("G", 65)), f32("G", 65))
    assert all(set(op.required).isdisjoint(op.optional) for op in OPS.values())


def test_text() -> None:
    b = GraphBuilder()
    x = b.rope(b.embed(b.token_ids, b.weight("table", (8, 4), "float32")), RopeSpec((1.0, 0.5), 2.0), 1, 4)
    assert str(x.producer) == (
        "%1: float32[T, 4] = rope(x=%0, positions=%positions, num_heads=1, head_dim=4, rope=rope[2 pairs, factor 2])"
    )


def test_constant_definitions() -> None:
    definition = ConstantDef(
        (RowSegment("a", 2, 5), RowSegment(None, 0, 4), RowSegment("b", 0, 1), RowSegment("a", 0, 2))
    )
    assert definition.num_rows == 10 and definition.sources == ("a", "b")
