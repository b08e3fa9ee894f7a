"""check_graph accepts what models and passes make, and names what is wrong in anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from albireo.compiler.pipeline import run_passes
from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import ConstantDef, Graph, Node, RowSegment, TensorType, Value
from albireo.graph.ops import RopeSpec
from albireo.graph.spec import check_graph, symbol_rows
from compiler.examples import ROPE, D, Decoder, E, H, K


def node(graph: Graph, op: str, nth: int = 0) -> Node:
    return [n for n in graph.nodes if op in (n.op, n.family)][nth]


def test_what_a_convolution_may_be() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "float32"))
    vector = b.weight("bias", (4,), "float32")
    x = b.causal_conv(x, b.weight("w", (4, 4), "float32"))
    x = b.causal_conv(x, b.weight("w3", (4, 3), "float32"), vector, activation="none")
    graph = b.finish(x=x)
    check_graph(graph)
    graph.nodes[-1].attrs["activation"] = "relu"
    with pytest.raises(InvariantError, match="activation='relu' must be one of silu, none"):
        check_graph(graph)


def swap(graph: Graph) -> None:
    graph.nodes[1], graph.nodes[2] = graph.nodes[2], graph.nodes[1]


def define_twice(graph: Graph) -> None:
    graph.nodes.append(graph.nodes[0])


def forget_producer(graph: Graph) -> None:
    graph.nodes[3].outputs[0].producer = None


def wrong_type(graph: Graph) -> None:
    node(graph, "linear").output.type = TensorType("float32", ("T", 3))


def wrong_dtype(graph: Graph) -> None:
    node(graph, "cast").output.type = TensorType("float32", ("T", E))


def unknown_op(graph: Graph) -> None:
    node(graph, "unary").op = "softmax"


def extra_attr(graph: Graph) -> None:
    node(graph, "cast").attrs["rounding"] = "up"


def attr(op: str, name: str, value: object) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        node(graph, op).attrs[name] = value

    return change


def missing_role(graph: Graph) -> None:
    del node(graph, "linear").inputs["weight"]


def undefined_output(graph: Graph) -> None:
    graph.outputs["logits"] = Value("?", TensorType("float32", ("R", 3)))


def misnamed_constant(graph: Graph) -> None:
    graph.constants["other"] = graph.constants.pop("table")


def short_constant(graph: Graph) -> None:
    graph.constants["table"].constant = ConstantDef((RowSegment("table", 0, 3),))


def columns(start: int, stop: int) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        table = graph.constants["table"]
        assert table.constant is not None
        table.constant = ConstantDef(table.constant.segments, (start, stop))

    return change


def altered_matrix(graph: Graph) -> None:
    table = graph.constants["table"]
    assert table.constant is not None
    table.constant = ConstantDef(table.constant.segments, plus=1.0)


def endless_vector(graph: Graph) -> None:
    norm = next(v for v in graph.constants.values() if len(v.type.dims) == 1)
    assert norm.constant is not None
    norm.constant = ConstantDef(norm.constant.segments, factor=float("inf"))


def unregistered_constant(graph: Graph) -> None:
    del graph.constants["layers.0.q.weight"]


def stale_state(graph: Graph) -> None:
    node(graph, "kv_write", 1).inputs["kv"] = graph.inputs["kv"]


def read_behind_another_write(graph: Graph) -> None:
    node(graph, "kv_write", 1).attrs["layer"] = 0
    node(graph, "attention", 1).attrs["layer"] = 0
    node(graph, "attention", 1).inputs["kv"] = node(graph, "kv_write", 0).output


def read_before_write(graph: Graph) -> None:
    node(graph, "attention").attrs["layer"] = 1


def old_state_out(graph: Graph) -> None:
    graph.outputs["kv"] = node(graph, "kv_write").output


def stray_family(graph: Graph) -> None:
    node(graph, "unary").family = "linear"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap, "not defined before it is read"),
        (define_twice, "defined twice"),
        (forget_producer, "does not name its producer"),
        (wrong_type, r"outputs should be float32\[T, 32\]"),
        (wrong_dtype, r"outputs should be bfloat16\[T, 24\]"),
        (unknown_op, "unknown op 'softmax'"),
        (extra_attr, "rounding"),
        (missing_role, "weight"),
        (undefined_output, "output logits = %\\? is not defined"),
        (misnamed_constant, "constant other"),
        (altered_matrix, "only numbers of vectors are altered, by finite ones"),
        (endless_vector, "only numbers of vectors are altered, by finite ones"),
        (short_constant, "its segments have 3 rows"),
        (columns(0, 23), "its columns are 0 to 23"),
        (columns(-1, 23), "its columns are -1 to 23"),
        (unregistered_constant, "weight=%layers.0.q.weight is not defined"),
        (stale_state, "the KV state forks"),
        (read_behind_another_write, "layer 0 is read behind another write of it"),
        (read_before_write, "layer 1 is read before it is written"),
        (old_state_out, "output kv is"),
        (stray_family, "only a fused node has a body"),
        (attr("linear", "role", "column"), "role='column' must be one of heads, ffn, vocab, row"),
        (attr("linear", "chunks", 1), "chunks=1 must be a power of two from 2 to 8"),
        (attr("linear", "chunks", 6), "chunks=6 must be a power of two from 2 to 8"),
        (attr("linear", "chunks", 16), "chunks=16 must be a power of two from 2 to 8"),
        (attr("linear", "chunks", 8), "chunks=8 does not cut 24 inputs into equal parts of whole pairs"),
        (attr("unary", "kind", "relu6"), "kind='relu6' must be one of"),
        (attr("cast", "dtype", "int8"), "int8"),
        (attr("rms_norm", "eps", -1.0), "eps=-1.0 must be"),
        (attr("rms_norm", "num_heads", 5), "does not cut 24 channels"),
        (attr("rope", "num_heads", 3), "heads do not make 32 channels"),
        (attr("rope", "rope", RopeSpec((1.0,))), "does not have 4 pairs"),
        (attr("rope", "rope", 10000.0), "is not a RopeSpec"),
        (attr("attention", "num_kv_heads", 3), "is not a multiple of 3 KV heads"),
        (attr("attention", "window", 0), "window=0 must be None"),
        (attr("attention", "softcap", 0.0), "softcap=0.0 must be None"),
        (attr("attention", "scale", float("nan")), "scale=nan must be"),
        (attr("kv_write", "layer", -1), "layer=-1 must be"),
        (attr("kv_write", "num_kv_heads", 4), "is not 32 channels"),
    ],
)
def test_damage_is_named(damage: Callable[[Graph], None], message: str) -> None:
    graph = Decoder(layers=2).graph()
    check_graph(graph)
    damage(graph)
    with pytest.raises(InvariantError, match=message):
        check_graph(graph)


def no_body(graph: Graph) -> None:
    node(graph, "norm").body = None


def unknown_family(graph: Graph) -> None:
    node(graph, "norm").family = "layer_norm"


def other_role(graph: Graph) -> None:
    norm = node(graph, "norm")
    norm.inputs["gamma"] = norm.inputs.pop("x")


def other_attr(graph: Graph) -> None:
    node(graph, "attention").attrs["sink"] = 1


def body_of_another(graph: Graph) -> None:
    node(graph, "norm").body = node(graph, "linear").body


def body_with_other_outputs(graph: Graph) -> None:
    body = node(graph, "attention").body
    body.outputs = {"first": body.nodes[0].output}


def illegal_body(graph: Graph) -> None:
    node(graph, "attention").body.nodes.reverse()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_body, "needs a body and a known family"),
        (unknown_family, "needs a body and a known family"),
        (other_role, r"roles missing \['x'\], extra \['gamma'\]"),
        (other_attr, "sink"),
        (body_of_another, "the body's inputs are not the node's roles"),
        (body_with_other_outputs, "the body's outputs are not the node's"),
        (illegal_body, "not defined before it is read"),
    ],
)
def test_damage_to_a_fused_node_is_named(damage: Callable[[Graph], None], message: str) -> None:
    graph, _ = run_passes(Decoder(layers=2).graph())
    check_graph(graph)
    damage(graph)
    with pytest.raises(InvariantError, match=message):
        check_graph(graph)


def test_errors_name_the_node() -> None:
    graph = Decoder().graph()
    node(graph, "rope").attrs["rope"] = None
    with pytest.raises(InvariantError, match=r"^layers\.0\.attn: %\d+: float32\[T, 32\] = rope\("):
        check_graph(graph)


def test_two_states_cannot_come_in() -> None:
    b = GraphBuilder()
    b.graph.inputs["other"] = Value("other", TensorType("kv", ()))
    with pytest.raises(InvariantError, match="2 KV states"):
        check_graph(b.finish())


def test_attention_may_read_an_older_state_of_another_layer() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, K * D), "float32"))
    first = b.kv_write(b.rope(x, ROPE, K, D), x, 0, K, D)
    b.kv_write(x, x, 1, K, D)
    q = b.linear(x, b.weight("q", (H * D, K * D), "float32"))
    attrs = {"layer": 0, "num_heads": H, "num_kv_heads": K, "head_dim": D, "scale": 1.0, "window": 3, "softcap": None}
    b.kv, newest = first, b.kv
    y = b.attention(q, **attrs)
    b.kv = newest
    check_graph(b.finish(y=y))


@pytest.mark.parametrize("said", [{"window": 3}, {"both_ways": True}, {"causal": True}, {"first_key": 2}], ids=str)
def test_rows_that_see_so_many_keys_have_no_other_bounds(said: dict[str, object]) -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, K * D), "float32"))
    b.kv_write(x, x, 0, K, D)
    attrs = {"layer": 0, "num_heads": K, "num_kv_heads": K, "head_dim": D, "scale": 1.0, "window": None}
    attrs |= {"softcap": None}
    check_graph(b.finish(y=b.attention(x, **attrs, num_keys=5), z=b.attention(x, **attrs, first_key=5)))
    with pytest.raises(InvariantError, match=f"num_keys=5 has {next(iter(said))}, too"):
        b.attention(x, **attrs | said, num_keys=5)
    b.attention(x, **attrs, num_keys=0)
    with pytest.raises(InvariantError, match="num_keys=0 must be a whole number of at least 1"):
        check_graph(b.finish())


@pytest.mark.parametrize(
    "said", [{"window": None}, {"both_ways": True}, {"first_key": 2}, {"slopes": (0.5,) * K}], ids=str
)
def test_rows_that_see_chunks_have_no_other_bounds(said: dict[str, object]) -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, K * D), "float32"))
    b.kv_write(x, x, 0, K, D)
    attrs = {"layer": 0, "num_heads": K, "num_kv_heads": K, "head_dim": D, "scale": 1.0, "window": 4, "softcap": None}
    attrs |= {"in_chunks": True}
    check_graph(b.finish(y=b.attention(x, **attrs)))
    with pytest.raises(InvariantError, match="attention in chunks of window="):
        b.attention(x, **attrs | said)


def test_symbol_rows() -> None:
    assert symbol_rows(Value("x", TensorType("float32", ("G", 2)))) == "G"
    for dims in ((), (4, 2)):
        with pytest.raises(InvariantError):
            symbol_rows(Value("x", TensorType("float32", dims)))
