"""Passes for backends that are able to: where they run, what they make of a graph, and what they say of near misses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from albireo.backends.backend import EIGHT_BY_EIGHT_FLOATS, FOUR_BY_SIXTEEN, SHARED_EXPERTS
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compiler.passes import (
    canonicalize,
    choose_precision,
    fuse_attention_cast,
    fuse_attention_codes,
    join_shared_experts,
    merge_gate_up,
    narrow_activations,
    widen_activations,
)
from albireo.compiler.pipeline import ABLE_PASSES, PASSES, compile_graph, passes_for, run_passes
from albireo.dtypes import FP8_TOKEN, TOKEN
from albireo.graph.node import Graph
from albireo.graph.spec import check_graph
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, D, Decoder, E, FakeCatalog, H, K, V, model_graph
from step_batches import Work, make_step
from tiny_models import random_weights
from variants import AS_WIDE, VARIANTS, architecture_of, tiny_of

ONE = np.ones(1, np.int32)


def encoded(dtype: str, encoding: str, of_v: str | None = None) -> Graph:
    graph = model_graph("llama", dtype)
    choose_precision.run(
        graph, lambda name, role: None if role == "vocab" else of_v if of_v and "v_proj" in name else encoding
    )
    return graph


def types(graph: Graph) -> set[str]:
    return {node.inputs["x"].type.dtype for node in graph.nodes if node.op == "linear" or node.family == "linear"}


def test_abilities_decide() -> None:
    assert passes_for((), PASSES) == PASSES
    able = passes_for([ability for ability, _, _ in ABLE_PASSES], PASSES)
    assert len(able) == len(PASSES) + len(ABLE_PASSES) and [run for run in able if run in PASSES] == list(PASSES)
    assert fuse_attention_codes.run not in passes_for(
        ["attention to codes"], [run for run in PASSES if run is not fuse_attention_cast.run]
    )
    program = compile_graph(
        encoded("bfloat16", "int4.g32"),
        FakeCatalog(),
        maxima=MAXIMA,
        block_size=BLOCK_SIZE,
        max_positions=MAX_POSITIONS,
    )
    assert {record.name for record in program.report}.isdisjoint({"widen_activations", "fold_norm"})


@pytest.mark.parametrize(
    ("dtype", "encoding", "of_v", "reason"),
    [
        ("bfloat16", "int4.g32", None, ""),
        ("float16", "int4.g32", None, "computes in float16"),
        ("bfloat16", "int4.g32", "int8", "is also what linear"),
        ("bfloat16", "int4p.g32", None, "nothing"),
        ("bfloat16", "int4.g32.affine", None, "nothing"),
    ],
)
def test_what_meets_four_bits_stays_wide(dtype: str, encoding: str, of_v: str | None, reason: str) -> None:
    graph, (record,) = run_passes(encoded(dtype, encoding, of_v), [widen_activations.run])
    check_graph(graph)
    if reason in ("", "nothing"):
        assert not record.refusals and (TOKEN in types(graph)) == bool(reason)
    else:
        assert TOKEN in types(graph) and any(reason in refusal.reason for refusal in record.refusals)
    assert bool(record.firings) == (reason == "" or of_v is not None) and record.numerics == "removes rounding"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_what_meets_e4m3_becomes_e4m3(dtype: str) -> None:
    """Each value once: q, k and v read the same rows. The head keeps 16 bits."""
    graph = model_graph("llama", dtype)
    choose_precision.run(graph, lambda name, role: "fp8")
    wide, _ = run_passes(graph, [])
    graph, (record,) = run_passes(graph, [narrow_activations.run])
    check_graph(graph)
    assert record.numerics == "quantizes" and "logits" in record.refusals[0].reason
    linears = [node for node in graph.nodes if node.op == "linear"]
    assert {n.inputs["x"].type.dtype for n in linears if n.attrs.get("role") == "vocab"} == {"bfloat16"}
    layers = [node.inputs["x"] for node in linears if node.attrs.get("role") != "vocab"]
    assert {x.type.dtype for x in layers} == {FP8_TOKEN} and len(set(layers)) == len(layers) * 4 // 7
    weights = random_weights(load_architecture("llama").tiny, 1)
    step = make_step([Work([5, 6, 7], 0, [1, 2])], 8)
    one, other = (interpret(g, step, weights, ReferenceKV(4, 8, dtype))["logits"] for g in (wide, graph))
    assert 1e-3 < np.linalg.norm(one - other) / np.linalg.norm(one) < 0.3


def test_activations_of_weight_only_models_stay() -> None:
    graph = model_graph("llama", "bfloat16")
    choose_precision.run(graph, lambda name, role: "fp8.g128" if "down" in name else "int8", weight_only=True)
    graph, (record,) = run_passes(graph, [narrow_activations.run])
    check_graph(graph)
    assert FP8_TOKEN not in types(graph) and "stay bfloat16" in record.refusals[0].reason
    kept = [node.inputs["weight"] for node in graph.nodes if node.attrs.get("keeps") == "bfloat16"]
    assert {weight.type.dtype for weight in kept} == {"fp8.g128"}


def test_attention_to_codes_is_exact() -> None:
    graph = encoded("bfloat16", "int8")
    plain, _ = run_passes(graph)
    fused, records = run_passes(graph, passes_for(["attention to codes"], PASSES))
    check_graph(fused)
    outs = [node.output.type.dtype for node in fused.nodes if node.family == "attention"]
    assert outs.count(TOKEN) >= len(outs) - 1, "the last layer's may be behind a gather"
    assert any(record.name == "fuse_attention_codes" and record.firings for record in records)
    weights = random_weights(load_architecture("llama").tiny, 1)
    step = make_step([Work([5, 6, 7], 0, [1, 2])], 8)
    one, other = (interpret(g, step, weights, ReferenceKV(4, 8, "bfloat16"))["logits"] for g in (plain, fused))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(("dtype", "encoding"), [("bfloat16", None), ("float32", None), ("bfloat16", "int8")])
def test_attention_of_rows_is_exact(dtype: str, encoding: str | None) -> None:
    graph = encoded(dtype, encoding) if encoding else model_graph("llama", dtype)
    plain, _ = run_passes(graph)
    fused, records = run_passes(graph, passes_for(["attention of rows"], PASSES))
    check_graph(fused)
    attention = [node for node in fused.nodes if node.family == "attention"]
    assert ["rows" in node.inputs for node in attention] == [False] * (len(attention) - 1) + [True]
    assert attention[-1].output.type.dims[0] == "S" and attention[-1].inputs["q"].type.dims[0] == "T"
    assert len(fused.nodes) == len(plain.nodes) - 1
    (record,) = [record for record in records if record.name == "attention_of_rows"]
    assert len(record.firings) == 1 and record.saved_bytes
    weights = random_weights(load_architecture("llama").tiny, 1)
    step = make_step([Work([5, 6, 7], 0, [1, 2]), Work([5, 9], 0, [3])], 8)
    step = replace(step, logit_rows=np.array([4, 1, 4], np.int32), top_rows=np.array([2], np.int32), top_counts=ONE)
    one, other = (interpret(g, step, weights, ReferenceKV(4, 8, dtype)) for g in (plain, fused))
    assert one.outputs.keys() == other.outputs.keys() and len(one["logits"]) == 3
    for name, wanted in one.outputs.items():
        assert np.array_equal(wanted, other[name]), name


SHARING = "gemma4_text, embeddings of layers"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_rows_of_layers_that_share_caches_are_exact(dtype: str) -> None:
    """Behind the last layer that writes, all is of the rows that leave; the writer's attention is of them, too."""
    graph = model_graph(SHARING, dtype)
    plain, _ = run_passes(graph)
    fused, records = run_passes(graph, passes_for(["attention of rows"], PASSES))
    check_graph(fused)
    attention = [node for node in fused.nodes if node.family == "attention"]
    assert ["rows" in node.inputs for node in attention] == [False, False, True, True, True]
    assert [node.inputs["q"].type.dims[0] for node in attention] == ["T", "T", "T", "S", "S"]
    rotations = [node for node in fused.nodes if node.family == "rope"]
    assert ["rows" in node.inputs for node in rotations] == [False] * 6 + [True] * 2
    linears = [node for node in fused.nodes if node.family == "linear" and node.origin.startswith("layers.")]
    in_all_rows = {node.origin.split(".")[1] for node in linears if node.output.type.dims[0] == "T"}
    assert in_all_rows == {"0", "1", "2"}
    (record,) = [record for record in records if record.name == "rows_of_sharing_layers"]
    assert len(record.firings) == 1 and record.saved_bytes["T"] > 0
    weights = random_weights(tiny_of(SHARING), 1)
    step = make_step([Work([5, 6, 7], 0, [1, 2]), Work([5, 9], 0, [3])], 8)
    step = replace(step, logit_rows=np.array([4, 1, 4], np.int32), top_rows=np.array([2], np.int32), top_counts=ONE)
    one, other = (interpret(g, step, weights, ReferenceKV(4, 8, dtype)) for g in (plain, fused))
    assert one.outputs.keys() == other.outputs.keys() and len(one["logits"]) == 3
    for name, wanted in one.outputs.items():
        assert np.array_equal(wanted, other[name]), name


def test_rows_are_not_taken_in_front_of_layers_that_have_experts() -> None:
    """Pairs of a token and an expert are those of all tokens."""
    said = VARIANTS["gemma4_text, experts"] | VARIANTS[SHARING]
    architecture = load_architecture("gemma4_text")
    graph = build_graph(parse_config({**architecture.tiny, **said}, architecture.rules), 64)
    fused, records = run_passes(graph, passes_for(["attention of rows"], PASSES))
    check_graph(fused)
    (record,) = [record for record in records if record.name == "rows_of_sharing_layers"]
    assert not record.firings


def test_attention_that_others_read_is_of_all_rows() -> None:
    class Tapped(Decoder):
        def attend(self, q, i, **attrs):
            self.tapped = super().attend(q, i, **attrs)
            return self.tapped

    decoder = Tapped()
    graph = decoder.graph()
    graph.outputs["tap"] = decoder.tapped

    fused, records = run_passes(graph, passes_for(["attention of rows"], PASSES))
    assert not any("rows" in node.inputs for node in fused.nodes if node.family == "attention")
    assert not any(record.firings for record in records if record.name == "attention_of_rows")


def test_attention_knows_no_other_rows_than_those_that_leave() -> None:
    class Narrow(Decoder):
        def graph(self) -> Graph:
            x = self.b.embed(self.b.token_ids, self.weight("table", V, E))
            q, k, v = self.qkv(self.norm(x, "norm"), 0)
            self.b.kv_write(k, v, 0, K, D)
            a = self.b.cast(self.attend(self.b.cast(q, self.dtype), 0), self.dtype)
            rows = self.b.gather_rows(a, self.b.logit_rows)
            return self.b.finish(logits=self.b.linear(rows, self.weight("head", V, H * D)))

    fused, records = run_passes(Narrow("float32").graph(), passes_for(["attention of rows"], PASSES))
    assert not any("rows" in node.inputs for node in fused.nodes if node.family == "attention")
    (record,) = [record for record in records if record.name == "attention_of_rows"]
    assert "picks rows of R" in record.refusals[0].reason


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_gated_outputs_are_exact(dtype: str) -> None:
    """Two layers whose heads are normed and gated by silu, two of attention by sigmoids."""
    graph = model_graph("qwen3_5_text", dtype)
    plain, _ = run_passes(graph)
    fused, records = run_passes(graph, passes_for(["gated outputs"], PASSES))
    check_graph(fused)
    gates = [node for node in fused.nodes if node.family == "output_gate"]
    assert [("weight" in node.inputs, node.attrs["kind"]) for node in gates] == [(True, "silu"), (False, "sigmoid")] * 2
    assert {node.output.type.dtype for node in gates} == {dtype}
    (record,) = [record for record in records if record.name == "fuse_output_gate"]
    assert len(record.firings) == 4 and not record.refusals and record.saved_bytes
    weights = random_weights(load_architecture("qwen3_5_text").tiny, 1)
    step = make_step([Work([5, 6, 7], 0, [1, 2], 0), Work([5, 9], 0, [3], 1)], 8)
    one, other = (interpret(g, step, weights, ReferenceKV(4, 8, dtype))["logits"] for g in (plain, fused))
    assert np.array_equal(one, other)


def test_a_gate_that_others_read_stays() -> None:
    graph = model_graph("qwen3_5_text", "bfloat16")
    shares = [node.output for node in graph.nodes if node.op == "unary" and node.attrs["kind"] == "sigmoid"]
    graph.outputs["tap"] = shares[0]
    _, records = run_passes(graph, passes_for(["gated outputs"], PASSES))
    (record,) = [record for record in records if record.name == "fuse_output_gate"]
    assert len(record.firings) == 3 and "is an output of the graph" in record.refusals[0].reason


#: Abilities of passes that join small calls; of those that are exact alone.
EXACT = ["clipped gates", "rounded rows"]
SMALL = [*EXACT, "gated outputs", "turned rows", "streams at once", "columns in place"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["deepseek_v4", "deepseek_v32", "glm5_next_text", "nemotron_h", "kimi_linear"])
def test_small_calls_that_are_one_compute_the_same(name: str, dtype: str) -> None:
    """A linear's sum has no company in the reference, so all but norms of rows are the same numbers there."""
    graph = model_graph(name, dtype)
    plain, _ = run_passes(graph)
    weights = random_weights(tiny_of(name), 1)
    step = make_step([Work([5, 6, 7, 1, 2, 3, 4, 5], 0, [1, 2], 0), Work([5, 9], 0, [3], 1)], 8)
    wanted = interpret(plain, step, weights, ReferenceKV(4, 8, dtype))["logits"]
    for abilities in (EXACT, SMALL):
        fused, _ = run_passes(graph, passes_for(abilities, PASSES))
        check_graph(fused)
        assert len(fused.nodes) < len(plain.nodes) or abilities is EXACT
        found = interpret(fused, step, weights, ReferenceKV(4, 8, dtype))["logits"]
        assert abilities is SMALL or np.array_equal(found, wanted)
        assert np.abs(found - wanted).max() <= (1e-5 if dtype == "float32" else 3e-2) * np.abs(wanted).max()


def test_streams_whose_intermediates_are_read_elsewhere_stay() -> None:
    """What is added to streams, their norm, their mixture: each handed out once."""
    graph = model_graph("deepseek_v4", "bfloat16")
    balances = [node for node in graph.nodes if node.op == "balance"]
    _, records = run_passes(graph, passes_for(["streams at once"], PASSES))
    (record,) = [record for record in records if record.name == "fuse_streams"]
    parts = [node for node in graph.nodes if node.op == "add_parts"]
    nothing = next(node.inputs["x"] for node in parts if node.attrs["num_parts"] == 1)
    assert len(record.firings) == 2 * len(balances) and nothing.producer is not None
    norms = [node for node in graph.nodes if node.op == "rms_norm" and not node.inputs.keys() - {"x"}]
    written = [node for node in parts if node.attrs["num_parts"] > 1 and node.inputs["x"].producer in parts]
    weights = random_weights(tiny_of("deepseek_v4"), 1)
    step = make_step([Work([5, 6, 7], 0, [1, 2], 0)], 8)
    for value in (nothing, norms[0].output, written[0].inputs["x"]):
        graph.outputs = {"logits": graph.outputs["logits"], "tap": value}
        fused, _ = run_passes(graph, passes_for(["streams at once"], PASSES))
        check_graph(fused)
        found, wanted = (interpret(g, step, weights, ReferenceKV(4, 8, "bfloat16")) for g in (fused, graph))
        np.testing.assert_allclose(found["tap"], wanted["tap"], rtol=1e-2, atol=1e-2)


def test_abilities_have_one_name() -> None:
    assert {EIGHT_BY_EIGHT_FLOATS, FOUR_BY_SIXTEEN} <= {ability for ability, _, _ in ABLE_PASSES}


def logits_of(graph: Graph, name: str, dtype: str) -> np.ndarray:
    weights = random_weights(tiny_of(name), 1)
    step = make_step([Work([5, 6, 7], 0, [1, 2]), Work([5, 9], 0, [3])], 8)
    return interpret(graph, step, weights, ReferenceKV(4, 8, dtype))["logits"]


@pytest.mark.parametrize(
    ("name", "abilities", "family"),
    [
        ("gemma3_text", ("two norms",), "two_norms"),
        ("gemma4_text", ("two norms",), "two_norms"),
        ("gemma4_text", ("turned rows",), "qkv_rope_kv"),
        ("deepseek_v3", ("turned rows",), "head_rows"),
        ("deepseek_v2", ("turned rows", "columns in place"), "head_rows"),
    ],
)
def test_small_calls_that_are_one_change_no_bit(name: str, abilities: tuple[str, ...], family: str) -> None:
    graph = model_graph(name, "bfloat16")
    plain, _ = run_passes(graph)
    fused, _ = run_passes(graph, passes_for(abilities, PASSES))
    check_graph(fused)
    count = [sum(node.family == family for node in each.nodes) for each in (plain, fused)]
    assert count[1] > count[0] and len(fused.nodes) < len(plain.nodes)
    assert np.array_equal(logits_of(plain, name, "bfloat16"), logits_of(fused, name, "bfloat16"))


@pytest.mark.parametrize("name", AS_WIDE)
def test_a_shared_expert_is_one_of_the_others(name: str) -> None:
    """Sums are in another order; where its width is another, or a layer's part is, nothing changes."""
    graph = model_graph(name, "float32")
    plain, _ = run_passes(graph)
    fused, records = run_passes(graph, passes_for([SHARED_EXPERTS], PASSES))
    check_graph(fused)
    (record,) = [record for record in records if record.name == "join_shared_experts"]
    routes = [node for node in fused.nodes if node.family == "route"]
    assert len(record.firings) == len(routes) > 0 and record.numerics == "reorder"
    matrices = {weight for weight in fused.constants if ".shared_expert" in weight or "+shared_expert" in weight}
    assert matrices and all(".experts+shared_expert" in each for each in matrices if "_proj" in each)
    assert fused.top_k == graph.top_k + 1
    one, other = logits_of(plain, name, "float32"), logits_of(fused, name, "float32")
    assert np.abs(one - other).max() <= 1e-5 * np.abs(one).max()

    kind = architecture_of(name)
    other_width = build_graph(parse_config(kind.tiny, kind.rules).with_dtype("float32"), MAX_POSITIONS)
    _, (*_, record) = run_passes(other_width, passes_for([SHARED_EXPERTS], PASSES)[:5])
    assert record.name == "join_shared_experts" and not record.firings
    assert "does what experts do" in record.refusals[0].reason


def test_a_shared_expert_whose_gate_is_the_other_half_stays() -> None:
    """The same ops of the same sizes, and another function."""
    graph, _ = run_passes(model_graph("deepseek_v3, as wide", "float32"), [canonicalize.run, merge_gate_up.run])
    for node in graph.nodes:
        first = node.inputs["x"].producer if node.op == "split" else None
        if first is not None and "shared_experts" in first.inputs["weight"].name:
            node.outputs = node.outputs[::-1]
    fused, (record,) = run_passes(graph, [join_shared_experts.run])
    check_graph(fused)
    assert not record.firings and all("does what experts do" in each.reason for each in record.refusals)
    one, other = (
        logits_of(graph, "deepseek_v3, as wide", "float32"),
        logits_of(fused, "deepseek_v3, as wide", "float32"),
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize(("encoding", "is_joined"), [("int8", True), ("int4.g32", True), ("fp8", False)])
def test_a_shared_expert_in_few_bits_is_one_where_it_rounds_alike(encoding: str, is_joined: bool) -> None:
    """Rows of e4m3 are made of 16 bits between the matrices of experts, of float32 between those of a linear."""
    graph = model_graph("deepseek_v3, as wide", "bfloat16")
    choose_precision.run(graph, lambda _, role: None if role in ("router", "vocab") else encoding)
    fused, records = run_passes(graph, passes_for([EIGHT_BY_EIGHT_FLOATS, FOUR_BY_SIXTEEN, SHARED_EXPERTS], PASSES))
    check_graph(fused)
    (record,) = [record for record in records if record.name == "join_shared_experts"]
    assert bool(record.firings) == is_joined and fused.top_k == graph.top_k + is_joined


def test_linears_stay_where_adapters_may_be_of_them() -> None:
    class Able(FakeCatalog):
        abilities = frozenset({SHARED_EXPERTS})

    graph, sizes = model_graph("deepseek_v3, as wide", "bfloat16"), {"maxima": MAXIMA, "block_size": BLOCK_SIZE}
    programs = [
        compile_graph(graph, Able(), **sizes, max_positions=MAX_POSITIONS, keeps_linears=keeps)
        for keeps in (False, True)
    ]
    names = [{name for name in program.constants if "shared_experts" in name} for program in programs]
    assert all(".experts+shared_experts." in name for name in names[0]) and names[0]
    assert not any("+shared_experts." in name for name in names[1]) and names[1]
