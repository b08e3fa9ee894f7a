"""shard: what each rank gets, that ranks compute what one computes, and what is refused, in which words."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.ranks import interpret_ranks
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part, parts, problems, run
from albireo.compiler.pipeline import PASSES, run_passes, shard_pass
from albireo.errors import ConfigError, UnsupportedModel
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, RowSegment
from albireo.graph.spec import check_graph
from compiler.examples import BLOCK_SIZE
from compiler.ranks import SIZES, rank_graphs, wide_config, wide_graph
from in_turn import in_turn
from step_batches import Work, make_step
from tiny_models import random_weights

NUM_BLOCKS = 8
TABLES = ("model.embed_tokens.weight", "transformer.word_embeddings.weight")
#: kv heads as many as query heads, fewer than ranks, one.
KV_HEADS = {
    "llama": 2,
    "mistral": 8,
    "qwen2": 1,
    "qwen3": 4,
    "phi3": 2,
    "gemma": 1,
    "gemma2": 4,
    "gemma3_text": 2,
    "granite": 2,
    "smollm3": 2,
    "olmo2": 8,
    "mimo": 2,
    # heads that share latents
    "youtu": 8,
    "minicpm3": 8,
    "bloom": 8,
    # layers with heads of two shapes
    "gemma4_text": 4,
    "nanochat": 4,
}


def steps() -> list[StepInputs]:
    first = [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3, 1, 6]), Work([11, 4, 6], 0, [2, 5])]
    second = [Work([8], 9, [3, 1, 6]), Work([13, 2], 3, [2, 5])]
    return [make_step(first, BLOCK_SIZE, "last", "last"), make_step(second, BLOCK_SIZE, "all", "all")]


def run_ranks(graphs: list[Graph], weights: dict[str, np.ndarray], dtype: str) -> list[dict[str, np.ndarray]]:
    kvs = [ReferenceKV(NUM_BLOCKS, BLOCK_SIZE, dtype) for _ in graphs]
    return [interpret_ranks(graphs, step, weights, kvs).outputs for step in steps()]


@in_turn(("dtype", ["float32", "bfloat16"]), ("model_type", KV_HEADS), ("size", SIZES[1:]))
def test_every_number_of_ranks_gives_the_same_bits(model_type: str, dtype: str, size: int) -> None:
    config = wide_config(model_type, num_key_value_heads=KV_HEADS[model_type])
    graph, weights = wide_graph(config, dtype), random_weights(config, seed=1)
    wanted = None
    for count in (1, size):
        for passes in ((), PASSES):
            graphs = rank_graphs(graph, count, passes)
            for each in graphs:
                check_graph(each)
            got = run_ranks(graphs, weights, dtype)
            wanted = wanted or got
            for a, b in zip(got, wanted, strict=True):
                assert a.keys() == b.keys() == {"logits", "top_ids", "top_values"}
                for key in b:
                    assert np.array_equal(a[key], b[key]), f"{key} differs with {count} ranks, {len(passes)} passes"


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("model_type", ["cohere", "stablelm"])
def test_numbers_of_each_head_go_with_it(model_type: str, kv_heads: int) -> None:
    """Of norms of q and k; several ranks may have the same key."""
    said = {"cohere": "use_qk_norm", "stablelm": "qk_layernorm"}[model_type]
    config = wide_config(model_type, num_key_value_heads=kv_heads) | {said: True}
    graph, weights = wide_graph(config), random_weights(config, seed=1)
    wanted = run_ranks(rank_graphs(graph, 1), weights, "float32")
    for size in (2, 4, 8):
        graphs = rank_graphs(graph, size)
        count = config["num_attention_heads"] // size
        norms = [n for n in graphs[-1].nodes if n.op == "rms_norm" and n.attrs["num_heads"] == count]
        assert all(n.inputs["weight"].type.dims[0] % count == 0 for n in norms)
        for a, b in zip(run_ranks(graphs, weights, "float32"), wanted, strict=True):
            assert all(np.array_equal(a[key], b[key]) for key in b)


def test_the_tree_is_near_the_chain() -> None:
    """Another order of the same sums: a rounding here and there."""
    config = wide_config("llama")
    graph, weights = wide_graph(config), random_weights(config, seed=1)
    kv = ReferenceKV(NUM_BLOCKS, BLOCK_SIZE)
    for step, tree in zip(steps(), run_ranks(rank_graphs(graph, 1), weights, "float32"), strict=True):
        chain = interpret(graph, step, weights, kv)
        assert not np.array_equal(chain["logits"], tree["logits"])
        np.testing.assert_allclose(chain["logits"], tree["logits"], rtol=1e-4, atol=1e-5)
        assert np.array_equal(chain["top_ids"][:, 0], tree["top_ids"][:, 0])


def node(graph: Graph, origin: str, op: str = "linear") -> Node:
    return next(n for n in graph.nodes if n.origin == origin and n.op == op)


def test_a_rank_has_its_heads_channels_and_part_of_the_vocabulary() -> None:
    """llama: biases, 8 heads of 12, 2 KV heads, 112 channels, 131 entries; the second of four ranks."""
    graph, record = run_passes(wide_graph(wide_config("llama")), (shard_pass(Part(4, 1)),))
    name = "model.layers.1.self_attn"
    q, k = node(graph, "layers.1.attn.q"), node(graph, "layers.1.attn.k")
    assert q.inputs["weight"].constant.segments == (RowSegment(f"{name}.q_proj.weight", 24, 48),)
    assert q.inputs["bias"].constant.segments == (RowSegment(f"{name}.q_proj.bias", 24, 48),)
    # query heads 2 and 3 read KV head 0, as heads 0 and 1 of rank 0 do
    assert k.inputs["weight"].constant.segments == (RowSegment(f"{name}.k_proj.weight", 0, 12),)
    o = node(graph, "layers.1.attn.o").inputs["weight"]
    assert o.type.dims == (96, 24) and o.constant.columns == (24, 48) and o.constant.num_rows == 96
    gate, down = node(graph, "layers.1.mlp.gate"), node(graph, "layers.1.mlp.down")
    assert gate.inputs["weight"].constant.segments == (RowSegment("model.layers.1.mlp.gate_proj.weight", 28, 56),)
    assert down.inputs["weight"].constant.columns == (28, 56) and "bias" not in down.inputs
    head = node(graph, "head.logits").inputs["weight"]
    assert head.constant.segments == (RowSegment("lm_head.weight", 32, 65),)  # of 131: 32, 33, 33, 33
    attention = node(graph, "layers.1.attn.attention", "attention").attrs
    assert (attention["num_heads"], attention["num_kv_heads"]) == (2, 1)
    assert node(graph, "layers.1.attn.kv", "kv_write").attrs["num_kv_heads"] == 1
    # what ranks add has no bias yet, which comes once; half of a tree of eight lies in a rank of two, a quarter here
    reduce = node(graph, "layers.1.mlp.down", "all_reduce")
    assert reduce.attrs == {"ranks": 4} and reduce.inputs["bias"].name == "model.layers.1.mlp.down_proj.bias"
    assert down.attrs == {"chunks": 2} and reduce.inputs["x"] is down.output
    assert graph.outputs["logits"].type.dims == ("R", 33)
    assert len(record[0].firings) == 7 * 3 + 2 and record[0].notes == ["rank 1 of 4, sums as a tree of 8"]


# of whose layers with one KV head two ranks have the same
@pytest.mark.parametrize("model_type", sorted(set(KV_HEADS) - {"gemma4_text"}))
def test_the_parts_of_all_ranks_are_the_whole(model_type: str) -> None:
    """Each matrix is there once in all; norms, the biases of sums and the embedding table are not cut."""
    config = wide_config(model_type)
    whole, graphs = wide_graph(config), rank_graphs(wide_graph(config), 2, ())
    for value in whole.constants.values():
        name = value.name
        cut = [g.constants[f"{name}/2"] for g in graphs if f"{name}/2" in g.constants]
        kept = sum(name in g.constants for g in graphs)
        if not cut:
            is_whole = name in TABLES or (model_type == "olmo2" and ".self_attn." in name)
            is_whole |= any(part in name for part in ("q_a_proj", "c_kv_proj", "k_rope_proj"))  # latents of all heads
            assert kept == 2 and (len(value.type.dims) == 1 or is_whole)
            continue
        assert kept == (2 if name in TABLES else 0)
        axis = 1 if cut[0].constant.columns else 0
        assert sum(v.type.dims[axis] for v in cut) == value.type.dims[axis]
        if axis == 0:
            rows = [
                [(s.source, row) for s in v.constant.segments for row in range(s.start, s.stop)] for v in (*cut, value)
            ]
            assert rows[0] + rows[1] == rows[2]
            continue
        spans = [v.constant.columns for v in cut]
        assert spans[0][0] == 0 and spans[0][1] == spans[1][0] and spans[1][1] == value.type.dims[axis]


def test_one_rank_alone_is_the_graph_with_its_sums_in_order() -> None:
    before = wide_graph(wide_config("qwen2"))
    after, _ = run_passes(before, (shard_pass(Part(1, 0)),))
    assert list(after.constants) == list(before.constants)
    chunked = [n.origin.rpartition(".")[2] for n in after.nodes if n.attrs.get("chunks") == 8]
    assert set(chunked) == {"o", "down"} and not any(n.op == "all_reduce" for n in after.nodes)
    assert parts(1, False) == (None,) and parts(1, True) == (Part(1, 0),) and len(parts(4, False)) == 4


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({}, 3, "tensor_parallel_size=3 is not possible for this model: it must be one of 1, 2, 4, 8; possible "),
        ({}, 16, "it must be one of 1, 2, 4, 8; possible for this model: 1, 2, 4, 8"),
        ({"num_attention_heads": 4}, 8, "4 query heads do not divide by 8; possible for this model: 1, 2, 4"),
        (
            {"num_attention_heads": 24, "num_key_value_heads": 3},
            2,
            "3 KV heads neither divide by 2 nor can 2 ranks share them evenly; possible for this model: 1",
        ),
        (
            {"intermediate_size": 104},
            2,
            "layers.0.mlp.down adds 104 products, no multiple of 16 (a tree of pairs); possible for this model: 1",
        ),
        ({"vocab_size": 5}, 8, "a vocabulary of 5 has no part for each of 8; possible for this model: 1, 2, 4"),
    ],
)
def test_what_cannot_be_cut(changes: dict[str, int], size: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(wide_graph(wide_config("mistral", **changes)), Part(size, 0))
    assert words in str(caught.value)
    assert not problems(wide_graph(wide_config("mistral")), 2)


def test_one_rank_cannot_always_add_in_the_order_of_several() -> None:
    with pytest.raises(ConfigError, match=r"tp_invariant is not possible for this model: layers\.0\.attn\.o adds 24"):
        run(by_hand("row", inner=24), Part(1, 0))


def by_hand(role: str | None, inner: int = 32, between: str = "", width: int = 8) -> Graph:
    """Attention and an output projection with a given role, and something between them that ranks cannot do."""
    b = GraphBuilder()
    heads = {"layer": 0, "num_kv_heads": inner // 4, "head_dim": 4}
    x = b.embed(b.token_ids, b.weight("table", (20, width), "float32"))
    with b.part("layers.0.attn.q"):
        q = b.linear(x, b.weight("q", (inner, width), "float32"), role="heads")
        k = b.linear(x, b.weight("k", (inner, width), "float32"), role="heads")
    b.kv_write(k, k, **heads)
    a = b.attention(q, num_heads=inner // 4, scale=1.0, window=None, softcap=None, **heads)
    with b.part("layers.0.attn.o"):
        if between == "split":
            a = b.split(a, (inner,))[0]
        if between == "norm":
            a = b.rms_norm(a, b.weight("norm", (inner,), "float32"), 1e-5)
        if between == "add":
            a = b.add(a, b.linear(x, b.weight("other", (inner, width), "float32")))
        given = x if between == "whole" else a
        o = b.linear(given, b.weight("o", (width, int(given.type.dims[-1])), "float32"), role=role)
    return b.finish(logits=b.gather_rows(b.add(x, o), b.logit_rows))


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (by_hand("row", between="split"), "split %.* cannot be computed from the part of a rank"),
        (by_hand("row", between="norm"), "rms_norm %.* cannot be computed from the part of a rank"),
        (by_hand("row", between="add"), "add %.* cannot be computed from the part of a rank"),
        (by_hand("row", between="whole", width=16), "has the role row, but its input is not a rank's part"),
        (by_hand("ffn"), "no linear of the graph has a role"),
    ],
)
def test_roles_that_do_not_fit_together(graph: Graph, words: str) -> None:
    with pytest.raises((UnsupportedModel, ConfigError), match=words):
        run(graph, Part(2, 1))


def test_a_linear_without_a_role_needs_all_of_its_input() -> None:
    graph = by_hand("row")
    o = node(graph, "layers.0.attn.o")
    graph.nodes.insert(graph.nodes.index(o), Node("linear", dict(o.inputs), {}, (), "layers.0.tap"))
    with pytest.raises(UnsupportedModel, match=r"layers\.0\.tap: linear .* needs all of its input, of which a rank"):
        run(graph, Part(2, 0))


@pytest.mark.parametrize(
    ("model_type", "kind"), [("llama", "int8"), ("qwen3", "int8"), ("qwen3", "int4.g32"), ("qwen3", "fp8")]
)
def test_weights_in_few_bits_give_the_same_bits_on_any_ranks(model_type: str, kind: str) -> None:
    """Sums of leaves, each with roundings of its own; near those of one rank alone, which rounds whole rows."""
    config = wide_config(model_type, intermediate_size=512, head_dim=32)
    weights = random_weights(config, seed=1)
    graph = wide_graph(config, "bfloat16")
    choose_precision.run(graph, lambda name, role: kind)
    wanted = None
    # llama's o has a bias here, which only a sum over ranks adds
    assert bool(problems(graph, 1)) == (model_type == "llama")
    for size, passes in ((1, ()), (2, PASSES), (8, ())):
        if problems(graph, size):
            continue
        graphs = rank_graphs(graph, size, passes)
        for each in graphs:
            check_graph(each)
        got = run_ranks(graphs, weights, "bfloat16")
        wanted = wanted or got
        for a, b in zip(got, wanted, strict=True):
            for key in b:
                assert np.array_equal(a[key], b[key]), f"{key} differs with {size} ranks, {len(passes)} passes"
    kv = ReferenceKV(NUM_BLOCKS, BLOCK_SIZE, "bfloat16")
    for step, tree in zip(steps(), wanted or (), strict=True):
        alone = interpret(graph, step, weights, kv)["logits"]
        # weights are rounded leaf by leaf here too; with columns of another leaf they would be off by 1.4
        assert np.linalg.norm(alone - tree["logits"]) < (0.3 if "int4" in kind else 0.1) * np.linalg.norm(alone)


def test_more_ranks_than_any_model_has_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="tensor_parallel_size=1000000000 is not possible: it must be at most 8"):
        parts(10**9, False)


def test_leaves_of_channels_are_whole_groups_and_need_not_be_equal() -> None:
    """13 groups of an FFN: 6 and 7 for two ranks, one or two for eight."""
    config = wide_config("qwen3", intermediate_size=416, head_dim=32)
    graph, weights = wide_graph(config, "bfloat16"), random_weights(config, seed=1)
    choose_precision.run(graph, lambda name, role: "int4.g32")
    wanted = None
    for size in SIZES:
        graphs = rank_graphs(graph, size, PASSES if size > 1 else ())
        got = run_ranks(graphs, weights, "bfloat16")
        wanted = wanted or got
        for a, b in zip(got, wanted, strict=True):
            assert all(np.array_equal(a[key], b[key]) for key in b), size
    graphs = rank_graphs(graph, 2, ())
    rows = [node(each, "layers.1.mlp.gate").inputs["weight"].constant.segments for each in graphs]
    assert [(part.start, part.stop) for (part,) in rows] == [(0, 192), (192, 416)]
    downs = [n for n in graphs[0].nodes if n.op == "linear" and n.origin == "layers.1.mlp.down"]
    assert [n.inputs["weight"].constant.columns for n in downs] == [(0, 32), (32, 96), (96, 128), (128, 192)]
    kv = ReferenceKV(NUM_BLOCKS, BLOCK_SIZE, "bfloat16")
    for step, tree in zip(steps(), wanted or (), strict=True):
        alone = interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(alone - tree["logits"]) < 0.3 * np.linalg.norm(alone)


def test_groups_that_ranks_do_not_divide_are_refused_by_name() -> None:
    graph = wide_graph(wide_config("llama", intermediate_size=512))
    choose_precision.run(graph, lambda name, role: "int4.g32" if "down" in name else "int4.g64")
    (problem,) = problems(graph, 2)
    assert problem == ("layers.0.attn.o adds 96 products of int4.g64, and the 48 of a rank are no whole groups")
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=2 is not possible .* possible for this model: 1"):
        run_passes(graph, (shard_pass(Part(2, 0)),))
