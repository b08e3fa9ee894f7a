"""shard on layers that keep a state: what a rank gets of them, that ranks compute what one does, what stays whole."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.ranks import interpret_ranks
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part, problems, run
from albireo.compiler.pipeline import PASSES, run_passes, shard_pass
from albireo.compiler.state_parts import state_parts
from albireo.errors import ConfigError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment
from albireo.graph.spec import check_graph
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from compiler.examples import BLOCK_SIZE
from compiler.ranks import SIZES, STATES, rank_graphs, wide_graph, wide_hybrid
from compiler.test_shard import NUM_BLOCKS, node
from in_turn import in_turn
from step_batches import Work, make_step
from tiny_models import random_weights

#: On how many ranks each keeps a part of the states; on others, all of them.
CUT = {name: (2, 4, 8) for name in STATES} | {
    "nemotron_h": (2, 4),
    "zamba2": (2,),
    "bamba": (),
    "granitemoehybrid": (),
    "jamba": (),
    "kimi_linear": (),
    "bailing_hybrid": (),
    "glm5_next_text": (),
    "zaya": (),
    **dict.fromkeys(("minimax", "minimax_m1", "minimax_text_01"), ()),
}


def steps() -> list[StepInputs]:
    """Prompts of two sequences; then a token and two."""
    first = [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3, 1, 6], 1), Work([11, 4, 6], 0, [2, 5], 0)]
    second = [Work([8], 9, [3, 1, 6], 1), Work([13, 2], 3, [2, 5], 0)]
    return [make_step(first, BLOCK_SIZE, "last", "last"), make_step(second, BLOCK_SIZE, "all", "all")]


def assert_all_the_same(
    graph: Graph, weights: dict[str, np.ndarray], dtype: str, sizes: tuple[int, ...] = SIZES, *, few: float = 1e-4
) -> None:
    """Each of these numbers of ranks gives the same bits, near those of the graph as it is."""
    wanted: list[dict[str, np.ndarray]] = []
    for size in sizes:
        for passes in ((), PASSES):
            graphs = rank_graphs(graph, size, passes)
            for each in graphs:
                check_graph(each)
            kvs = [ReferenceKV(NUM_BLOCKS, BLOCK_SIZE, dtype) for _ in graphs]
            got = [interpret_ranks(graphs, step, weights, kvs).outputs for step in steps()]
            wanted = wanted or got
            for a, b in zip(got, wanted, strict=True):
                for key in b:
                    assert np.array_equal(a[key], b[key]), f"{key} differs with {size} ranks, {len(passes)} passes"
    kv = ReferenceKV(NUM_BLOCKS, BLOCK_SIZE, dtype)
    for step, tree in zip(steps(), wanted, strict=True):
        alone = interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(alone - tree["logits"]) < few * np.linalg.norm(alone)


@in_turn(("model_type", STATES), ("size", SIZES[1:]))
def test_every_number_of_ranks_gives_the_same_bits(model_type: str, size: int) -> None:
    config = wide_hybrid(model_type)
    assert_all_the_same(wide_graph(config), random_weights(config, seed=1), "float32", (1, size))


# of DeepSeek V4 no linear reads what its states give
@pytest.mark.parametrize("model_type", sorted(set(STATES) - {"deepseek_v4"}))
def test_how_many_ranks_keep_a_part_of_states(model_type: str) -> None:
    graph = wide_graph(wide_hybrid(model_type))
    for size in SIZES:
        outs = state_parts(graph, size, 0).outs
        assert set(outs.values()) == ({size in CUT[model_type]} if CUT[model_type] else set()), size
        of_layers = {n.origin.rpartition(".")[0] for n in graph.recurrent if n.op != "pool_rows"}
        assert len(outs) in (0, len(of_layers))


@pytest.mark.parametrize("model_type", ["qwen3_next", "lfm2", "falcon_h1"])
def test_so_it_is_in_16_bits(model_type: str) -> None:
    config = wide_hybrid(model_type)
    assert_all_the_same(
        wide_graph(config, "bfloat16"),
        random_weights(config, seed=1),
        "bfloat16",
        (1, 4),
        few=0.5 if "next" in model_type else 0.02,
    )


def test_so_it_is_in_few_bits() -> None:
    config = wide_hybrid("qwen3_5_text", linear_value_head_dim=32, head_dim=32, intermediate_size=256)
    graph = wide_graph(config, "bfloat16")
    choose_precision.run(graph, lambda name, role: None if role in ("router", "vocab") else "int8")
    assert_all_the_same(graph, random_weights(config, seed=1), "bfloat16", (1, 2, 8), few=0.1)


def test_a_rank_has_its_heads_of_a_state() -> None:
    """Four heads of keys of 8 channels, eight of values of 12; the second of four ranks has one, and two."""
    config = wide_hybrid("qwen3_5_text", linear_num_key_heads=4, linear_key_head_dim=8, linear_value_head_dim=12)
    graph, _ = run_passes(wide_graph(config), (shard_pass(Part(4, 1)),))
    name, origin = "model.layers.0.linear_attn", "layers.0.attn"

    def rows(part: str, weight: str, op: str = "linear") -> list[tuple[int, int]]:
        return [(s.start, s.stop) for s in node(graph, f"{origin}.{part}", op).inputs[weight].constant.segments]

    of_state = [(8, 16), (32 + 8, 32 + 16), (64 + 24, 64 + 48)]
    assert rows("qkv", "weight") == rows("conv", "weight", "causal_conv") == of_state
    assert rows("z", "weight") == [(24, 48)]
    rule = node(graph, f"{origin}.delta_rule", "gated_delta_rule")
    assert (rule.attrs["num_k_heads"], rule.attrs["num_v_heads"]) == (1, 2)
    assert rule.inputs["a_log"].constant.segments == (RowSegment(f"{name}.A_log", 2, 4),)
    gates = node(graph, f"{origin}.gates").inputs["weight"].constant.segments
    assert gates == (RowSegment(f"{name}.in_proj_b.weight", 2, 4), RowSegment(f"{name}.in_proj_a.weight", 2, 4))
    norm = node(graph, f"{origin}.out_norm", "rms_norm")
    assert norm.attrs["num_heads"] == 2 and norm.inputs["weight"].type.dims == (12,)
    assert node(graph, f"{origin}.out").inputs["weight"].constant.columns == (24, 48)
    assert node(graph, f"{origin}.out", "all_reduce").attrs == {"ranks": 4}


def test_ranks_that_are_more_than_heads_of_keys_share_one() -> None:
    """Falcon-H1: two of b and c, eight of values; of eight ranks 4 to 7 have the second."""
    graph, _ = run_passes(wide_graph(wide_hybrid("falcon_h1")), (shard_pass(Part(8, 5)),))
    state = next(n for n in graph.nodes if n.op == "selective_state")
    assert (state.attrs["num_k_heads"], state.attrs["num_v_heads"]) == (1, 1)
    conv = next(n for n in graph.nodes if n.op == "causal_conv")
    assert [(s.start, s.stop) for s in conv.inputs["weight"].constant.segments] == [
        (60, 72),
        (96 + 8, 96 + 16),
        (112 + 8, 112 + 16),
    ]


def test_what_does_not_divide_is_whole_and_a_tree() -> None:
    """Nemotron-H on eight ranks: the norm behind has four parts. No sum of ranks then, and the order of several."""
    graph, _ = run_passes(wide_graph(wide_hybrid("nemotron_h")), (shard_pass(Part(8, 3)),))
    out = node(graph, "layers.0.attn.out")
    assert out.attrs == {"chunks": 8} and out.inputs["weight"].constant.columns is None
    assert not [n for n in graph.nodes if n.op == "all_reduce" and n.origin == "layers.0.attn.out"]


@pytest.mark.parametrize("keys", [2, 3])
def test_heads_of_keys_divide_too(keys: int) -> None:
    """Three among two ranks would leave one of them in two parts."""
    heads = {"linear_num_key_heads": keys, "linear_num_value_heads": 6, "linear_value_head_dim": 16}
    graph = wide_graph(wide_hybrid("qwen3_next", **heads))
    cores = [n for n in graph.recurrent if n.op == "gated_delta_rule"]
    assert len(state_parts(graph, 2, 0).outs) == (len(cores) if keys == 2 else 0)
    assert not any(state_parts(graph, 4, 0).outs.values()), "six heads of values"


def by_hand(spoiled: str) -> Graph:
    """A short convolution between two linears, of which something is not as ranks need it; and an FFN."""
    n = 24 if spoiled == "uneven" else 32
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (20, 8), "float32"))
    parts = b.linear(x, b.weight("in", (3 * n, 8), "float32"))
    conv = b.causal_conv(parts, b.weight("conv", (n, 3), "float32"), None, activation="none", gated=True)
    if spoiled == "added":
        conv = b.add(conv, b.linear(x, b.weight("other", (32, 8), "float32")))
    if spoiled == "normed":
        conv = b.rms_norm(conv, b.weight("norm", (32,), "float32"), 1e-5)
    y = b.add(x, b.linear(conv, b.weight("out", (8, n), "float32")))
    if spoiled == "twice":
        y = b.add(y, b.linear(conv, b.weight("more", (8, 32), "float32")))
    if spoiled == "shared":
        y = b.add(y, b.linear(parts, b.weight("more", (8, 96), "float32")))
    up = b.linear(y, b.weight("up", (16, 8), "float32"), role="ffn")
    y = b.add(y, b.linear(up, b.weight("down", (8, 16), "float32"), role="row"))
    told = {"told": conv} if spoiled == "told" else {}
    return b.finish(logits=b.gather_rows(y, b.logit_rows), **told)


@pytest.mark.parametrize("spoiled", ["", "added", "normed", "twice", "uneven", "shared", "told"])
def test_layers_of_other_shapes_are_whole(spoiled: str) -> None:
    graph = by_hand(spoiled)
    whole = spoiled != ""
    assert bool(state_parts(graph, 1, 0).outs) != whole, "one norm of all channels is not cut, nor are 24 of them"
    run(graph, Part(2, 1))
    (conv,) = graph.recurrent
    assert conv.inputs["weight"].type.dims[0] == (24 if spoiled == "uneven" else 32 if whole else 16)
    assert sum(n.op == "all_reduce" for n in graph.nodes) == 2 - whole


def test_a_model_of_whole_states_alone_is_refused() -> None:
    architecture = load_architecture("mamba2")
    graph = build_graph(parse_config(architecture.tiny | {"n_groups": 1}, architecture.rules), 64)
    assert problems(graph, 2) == ["no rank could have a part of its layers, all of which keep states"]
    with pytest.raises(ConfigError, match="all of which keep states; possible for this model: 1"):
        run(graph, Part(2, 0))
