"""shard on layers with experts: what a rank gets of every expert, that ranks compute what one does, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compiler.leaf_sums import leaf_bounds
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import LEAVES, Part, problems, run
from albireo.compiler.pipeline import PASSES, run_passes, shard_pass
from albireo.errors import UnsupportedModel
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment
from albireo.graph.spec import check_graph
from albireo.models import load_architecture
from compiler.examples import BLOCK_SIZE
from compiler.ranks import CHOOSING_BY_HEADS, SIZES, STATES, compile_rank, rank_graphs, wide_graph, wide_mixture
from compiler.test_shard import NUM_BLOCKS, node, run_ranks, steps
from in_turn import in_turn
from tiny_models import MIXTURES, random_weights
from variants import MIXED


def assert_all_the_same(
    graph: Graph, weights: dict[str, np.ndarray], dtype: str, sizes: tuple[int, ...] = SIZES, *, few: float = 1e-4
) -> None:
    """Each of these numbers of ranks gives the same bits, near those of the graph as it is."""
    wanted = None
    for size in sizes:
        if problems(graph, size):
            continue
        for passes in ((), PASSES):
            graphs = rank_graphs(graph, size, passes)
            for each in graphs:
                check_graph(each)
            got = run_ranks(graphs, weights, dtype)
            wanted = wanted or got
            for a, b in zip(got, wanted, strict=True):
                for key in b:
                    assert np.array_equal(a[key], b[key]), f"{key} differs with {size} ranks, {len(passes)} passes"
    kv = ReferenceKV(NUM_BLOCKS, BLOCK_SIZE, dtype)
    for step, tree in zip(steps(), wanted or (), strict=True):
        alone = interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(alone - tree["logits"]) < few * np.linalg.norm(alone)


@in_turn(("model_type", [*sorted(set(MIXTURES) - {*STATES, *CHOOSING_BY_HEADS}), *MIXED]), ("size", SIZES[1:]))
def test_every_number_of_ranks_gives_the_same_bits(model_type: str, size: int) -> None:
    config = wide_mixture(model_type)
    assert not problems(wide_graph(config), 8)
    assert_all_the_same(wide_graph(config), random_weights(config, seed=1), "float32", (1, size))


@pytest.mark.parametrize("model_type", ["gpt_oss", "qwen2_moe"])
def test_so_it_is_in_16_bits(model_type: str) -> None:
    """One rounding may choose another expert: what is near is the same bits alone."""
    config = wide_mixture(model_type)
    assert_all_the_same(wide_graph(config, "bfloat16"), random_weights(config, seed=1), "bfloat16", (1, 4), few=0.5)


@pytest.mark.parametrize(("kind", "width", "most"), [("int8", 48, 8), ("int4.g32", 416, 8), ("fp4.g32", 96, 2)])
def test_so_it_is_in_few_bits(kind: str, width: int, most: int) -> None:
    """Leaves that are a group, two or none; the weights of one as they are rounded alone."""
    config = wide_mixture("qwen3_moe") | {"moe_intermediate_size": width}
    graph = wide_graph(config, "bfloat16")
    choose_precision.run(graph, lambda name, role: kind if ".experts." in name else None)
    assert [size for size in SIZES if not problems(graph, size)] == [size for size in SIZES if size <= most]
    assert_all_the_same(graph, random_weights(config, seed=1), "bfloat16", (1, 2, 8), few=0.6)


def test_a_rank_has_its_channels_of_every_expert() -> None:
    """mixtral: 3 experts of 112 channels and 96 outputs; the second of four ranks, of whose leaves each is a call."""
    config = wide_mixture("mixtral", num_local_experts=3)
    graph, _ = run_passes(wide_graph(config), (shard_pass(Part(4, 1)),))
    name, origin = "model.layers.1.block_sparse_moe.experts", "layers.1.moe.experts"
    gate = node(graph, f"{origin}.gate", "expert_linear")
    wanted = tuple(RowSegment(f"{name}.{expert}.w1.weight", 28, 56) for expert in range(3))
    assert gate.inputs["weight"].constant.segments == wanted and gate.output.type.dims == ("P", 28)
    downs = [n for n in graph.nodes if n.op == "expert_linear" and n.origin == f"{origin}.down"]
    assert [n.inputs["weight"].constant.columns for n in downs] == [(28, 42), (42, 56)]
    assert {n.inputs["weight"].type.dims for n in downs} == {(3 * 96, 14)}
    # what is sent around is a row of each token, not of each of its experts
    reduce = node(graph, "layers.1.moe.combine", "all_reduce")
    assert reduce.inputs["x"].type.dims == ("T", 96)
    routers = [n for n in graph.nodes if n.op == "linear" and n.origin.endswith("moe.router")]
    assert [n.inputs["weight"].type.dims for n in routers] == [(3, 96)] * len(routers)


def test_experts_filled_up_to_whole_panels_are_of_the_same_columns() -> None:
    program = compile_rank(wide_graph(wide_mixture("mixtral", num_local_experts=3)), Part(4, 1))
    found = [c for name, c in program.constants.items() if "experts.w2" in name and c.definition is not None]
    assert [c.definition.columns for c in found[:2]] == [(28, 42), (42, 56)]
    assert {(c.rows, c.cols) for c in found} == {(3 * 128, 14)}, "of 96 rows, 128 with zeros"


def test_the_bias_of_experts_comes_once() -> None:
    graphs = rank_graphs(wide_graph(wide_mixture("gpt_oss")), 2, ())
    downs = [[n for n in g.nodes if n.op == "expert_linear" and n.origin.endswith("down")] for g in graphs]
    layers = len(downs[0]) // 4
    assert [["bias" in n.inputs for n in each] for each in downs] == [
        [True, False, False, False] * layers,
        [False] * 4 * layers,
    ]
    gate = node(graphs[1], "layers.1.moe.experts.gate", "expert_linear")
    sources = gate.inputs["bias"].constant.segments
    assert sources[2] == RowSegment("model.layers.1.mlp.experts.2.gate_proj.bias", 56, 112)
    sinks = node(graphs[1], "layers.1.attn.attention", "attention").inputs["sinks"].constant.segments
    assert sinks == (RowSegment("model.layers.1.self_attn.sinks", 4, 8),)


@pytest.mark.parametrize(
    ("kind", "width", "bounds"),
    [
        (None, 112, (0, 14, 28, 42, 56, 70, 84, 98, 112)),
        (None, 40, (0, 4, 10, 14, 20, 24, 30, 34, 40)),  # whole pairs
        ("int8", 17, (0, 2, 4, 6, 8, 10, 12, 14, 17)),
        ("fp4.g32", 2880, (0, 352, 704, 1056, 1440, 1792, 2144, 2496, 2880)),
        ("fp8.g128", 768, (0, 0, 128, 128, 384, 384, 512, 512, 768)),
        ("fp8.g128", 384, (0, 0, 0, 0, 128, 128, 128, 128, 384)),
        ("fp8.g128", 128, (0, 0, 0, 0, 0, 0, 0, 0, 128)),
    ],
)
def test_where_leaves_begin(kind: str | None, width: int, bounds: tuple[int, ...]) -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (20, width), "float32"))
    ids, _ = b.route(x, 1, True)
    down = b.expert_linear(x, ids, b.experts(("a", "b"), "w", (8, width), kind or "float32"), 2, "row").producer
    assert down is not None
    assert leaf_bounds(down, LEAVES) == bounds


def by_hand(spoiled: str) -> Graph:
    """Attention and a layer of experts, of which something is not as ranks need it."""
    b = GraphBuilder()
    heads = {"layer": 0, "num_kv_heads": 8, "head_dim": 4}
    x = b.embed(b.token_ids, b.weight("table", (20, 8), "float32"))
    q, k = (b.linear(x, b.weight(name, (32, 8), "float32"), role="heads") for name in ("q", "k"))
    b.kv_write(k, k, **heads)
    a = b.attention(q, num_heads=8, scale=1.0, window=None, softcap=None, **heads)
    x = b.add(x, b.linear(a, b.weight("o", (8, 32), "float32"), role="row"))
    ids, weights = b.route(b.linear(x, b.weight("router", (2, 8), "float32")), 1, True)
    others, _ = b.route(b.linear(x, b.weight("other", (2, 8), "float32")), 1, True)
    up = b.expert_linear(
        x, others if spoiled == "ids" else ids, b.experts(("a",) * 2, "up", (32, 8), "float32"), 2, "ffn"
    )
    role = "ffn" if spoiled == "twice" else "row"
    down = b.expert_linear(up, ids, b.experts(("b",) * 2, "down", (8, 32), "float32"), 2, role)
    if spoiled == "uncombined":
        down = b.unary(down, "silu")
    return b.finish(logits=b.gather_rows(b.add(x, b.combine(down, weights)), b.logit_rows))


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ("ids", "its outputs are no inputs of experts that ranks add up"),
        ("twice", "its outputs are no inputs of experts that ranks add up"),
        ("uncombined", "what it gives is not added up for each token, and nothing else"),
    ],
)
def test_experts_that_do_not_fit_together(spoiled: str, words: str) -> None:
    assert run(by_hand(""), Part(2, 1)).firings
    with pytest.raises(UnsupportedModel, match=words):
        run(by_hand(spoiled), Part(2, 1))


def test_a_row_of_experts_needs_a_rank_s_part() -> None:
    graph = by_hand("")
    down = next(n for n in graph.nodes if n.op == "expert_linear" and n.attrs["role"] == "row")
    down.inputs["x"] = graph.nodes[0].output
    with pytest.raises(UnsupportedModel, match="has the role row, but its input is not a rank's part"):
        run(graph, Part(2, 1))


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_with_fewer_groups_than_leaves_make_the_same_calls(size: int) -> None:
    """Six groups: of four ranks two have one, two have two. Ranks of a CPU meet at the same calls, or not at all."""
    graph = wide_graph(wide_mixture("qwen3_moe") | {"moe_intermediate_size": 192}, "bfloat16")
    choose_precision.run(graph, lambda name, role: "int4.g32" if ".experts." in name else None)
    programs = [compile_rank(graph, Part(size, rank)) for rank in range(size)]
    assert len({tuple(call.family for call in program.calls) for program in programs}) == 1
    widths = [
        {program.buffers[c.args["x"]].cols for c in program.calls if c.family == "expert_linear"}
        for program in programs
    ]
    assert len(set(map(frozenset, widths))) == size // 2, "and have more to do, or less"


#: Sizes of a layer as published, the encoding of experts, and how many ranks may share it.
PUBLISHED: dict[str, tuple[dict[str, int], str, tuple[int, ...]]] = {
    "gpt_oss": (
        {"hidden_size": 2880, "intermediate_size": 2880, "num_attention_heads": 64, "num_key_value_heads": 8}
        | {"head_dim": 64, "num_local_experts": 32, "num_experts_per_tok": 4},
        "fp4.g32",
        (2, 4, 8),
    ),
    "qwen3_moe": (
        {"hidden_size": 2048, "moe_intermediate_size": 768, "num_attention_heads": 32, "num_key_value_heads": 4}
        | {"intermediate_size": 6144, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8},
        "fp8.g128",
        (2, 4),
    ),
    "deepseek_v3": (
        {"hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_attention_heads": 128}
        | {"num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128}
        | {"qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256, "num_experts_per_tok": 8},
        "fp8.g128",
        (2, 4, 8),
    ),
}


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_sizes_of_published_models(model_type: str) -> None:
    sizes, encoding, possible = PUBLISHED[model_type]
    graph = wide_graph({**load_architecture(model_type).tiny, **sizes}, "bfloat16")
    assert not any(problems(graph, size) for size in SIZES)
    choose_precision.run(graph, lambda name, role: encoding if ".experts." in name else None)
    assert [size for size in (2, 4, 8) if not problems(graph, size)] == list(possible)
