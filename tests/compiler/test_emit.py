"""Calls, barriers and the KV layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.compiler.emit import kv_layout
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph, optional_passes, passes_without, run_passes
from albireo.dtypes import itemsize
from albireo.errors import InvariantError, UnsupportedModel
from albireo.graph.builder import GraphBuilder
from albireo.graph.kv_layout import KVLayout
from albireo.graph.program import Program
from albireo.graph.program_checks import check_program
from albireo.graph.program_spec import ABLE_FAMILIES, FAMILIES
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, ROPE, D, Decoder, E, FakeCatalog, H, K, model_graph
from compiler.ranks import compile_rank, wide_config, wide_graph


def program(decoder: Decoder, **maxima: int) -> Program:
    return compile_graph(
        decoder.graph(), FakeCatalog(), maxima=MAXIMA | maxima, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS
    )


def test_roles_are_the_contracts() -> None:
    calls = {call.family: call for call in program(Decoder(bias="qo")).calls}
    rank = compile_rank(wide_graph(wide_config("llama"), "bfloat16"), Part(2, 1))
    calls |= {call.family: call for call in rank.calls if call.family == "all_reduce"}
    mixture = compile_graph(
        model_graph("qwen2_moe", "bfloat16"),
        FakeCatalog(),
        maxima=MAXIMA,
        block_size=BLOCK_SIZE,
        max_positions=MAX_POSITIONS,
    )
    calls |= {c.family: c for c in mixture.calls if c.family not in calls}
    of_towers = {"given", "add_given", "depthwise_conv"}
    of_single_ops = {"elementwise", "head_norm", "rope", "kv_write", "slice", "top"}
    of_latents = {"head_linear", "join_heads", "choose_keys"}
    assert set(FAMILIES) - set(calls) == of_single_ops | of_latents | of_towers | set(ABLE_FAMILIES)
    assert calls["embed"].args == {"ids": "token_ids", "table": "table", "out": "x"}
    qkv = calls["qkv_rope_kv"]
    assert qkv.args == {
        "x": "h",
        "weight": "layers.0.q+k+v.weight",
        "bias": "layers.0.q+k+v.bias",
        "rope": "rope.0",
        "q": "q",
    }
    assert calls["attention"].args == {"q": "q", "out": "a"}
    assert calls["gather"].args == {"x": "x", "rows": "out_rows", "out": "x_S"} and calls["gather"].rows == "S"
    assert calls["norm"].args["rows"] == "top_pos" and calls["norm"].rows == "G"
    assert calls["head_top"].args == {"x": "h_G", "weight": "table", "ids": "top_ids", "values": "top_values"}
    assert calls["all_reduce"].args == {
        "x": "m_S",
        "bias": "model.layers.2.mlp.down_proj.bias",
        "residual": "x_S",
        "out": "x_S",
    }
    assert calls["head_top"].split == "panels" and calls["attention"].split == "heads"
    assert calls["route"].args == {"x": "m2", "ids": "r", "weights": "r2"}
    assert calls["expert_linear"].args.keys() == {"x", "ids", "weight", "out"}
    assert calls["combine"].args == {"x": calls["expert_linear"].args["out"]} | {
        "weights": "r2",
        "residual": "x",
        "out": "x",
    }
    assert calls["gate_rows"].args.keys() == {"x", "gate", "residual", "out"}


def test_roles_of_single_ops() -> None:
    """merge_qkv is left to fire, so that its parts are cut out again."""
    optional = [name for name in optional_passes() if name != "merge_qkv"]
    compiled = compile_graph(
        Decoder().graph(),
        FakeCatalog(),
        maxima=MAXIMA,
        block_size=BLOCK_SIZE,
        max_positions=MAX_POSITIONS,
        passes=passes_without(optional),
    )
    check_program(compiled)
    calls = {call.family: call for call in compiled.calls}
    widths = [compiled.buffers[c.args["out"]].cols for c in compiled.calls if c.family == "slice"]
    assert widths == [H * D, K * D, K * D] and calls["slice"].attrs["start"] == (H + K) * D
    assert calls["rope"].args.keys() == {"x", "rope", "out"} and calls["rope"].attrs == {"num_heads": K, "head_dim": D}
    assert calls["kv_write"].args.keys() == {"k", "v"} and calls["kv_write"].rows == "T" and calls["kv_write"].barrier
    assert calls["top"].args.keys() == {"x", "ids", "values"} and calls["top"].rows == "G"
    kinds = [call.attrs["kind"] for call in compiled.calls if call.family == "elementwise"]
    assert kinds == ["cast", "cast", "cast", "add", "cast", "silu", "mul", "cast", "add", "cast"]
    assert compiled.kv.dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_barriers_are_enough(dtype: str, rows: int) -> None:
    compiled = program(Decoder(dtype, layers=2, tied=False), R=rows, G=rows)
    check_program(compiled)
    assert not compiled.calls[-1].barrier
    layers = [call for call in compiled.calls if call.rows == "T"]
    assert all(call.barrier for call in layers)


def test_no_barrier_is_too_many() -> None:
    """Leaving any one out is noticed by the program's checker."""
    compiled = program(Decoder(layers=1), R=20, G=20)
    assert sum(call.barrier for call in compiled.calls) > 8
    for i, call in enumerate(compiled.calls):
        if call.barrier:
            calls = (*compiled.calls[:i], replace(call, barrier=False), *compiled.calls[i + 1 :])
            with pytest.raises(InvariantError, match="no barrier between"):
                check_program(replace(compiled, calls=calls))


def test_ranks_always_meet_behind_a_sum() -> None:
    """Others read what this rank gave; that its own calls do not overwrite it says nothing."""
    rank = compile_rank(wide_graph(wide_config("llama")), Part(2, 0))
    check_program(rank)
    places = [i for i, call in enumerate(rank.calls) if call.family == "all_reduce"]
    assert len(places) == 2 * 3
    for i in places:
        assert rank.calls[i].barrier
        calls = (*rank.calls[:i], replace(rank.calls[i], barrier=False), *rank.calls[i + 1 :])
        with pytest.raises(InvariantError, match="there is no barrier behind it"):
            check_program(replace(rank, calls=calls))


def test_kv_layout() -> None:
    graph, _ = run_passes(Decoder("float16", layers=3).graph())
    assert kv_layout(graph, 16) == KVLayout(3, K, D, "float16", 16)
    assert kv_layout(graph, 16).padded_head_dim == 16


def test_layers_with_holes_are_refused_and_may_differ_in_shape() -> None:
    class Holes(Decoder):
        def attention(self, x, i):
            return super().attention(x, 2 * i)

    class Mixed(Decoder):
        """The second layer has one KV head."""

        def attention(self, x, i):
            if i == 0:
                return super().attention(x, i)
            h = self.norm(x, f"layers.{i}.norm1")
            parts = [self.linear(h, f"layers.{i}.{p}", D) for p in "qkv"]
            q, k = (self.b.rope(part, ROPE, 1, D) for part in parts[:2])
            self.b.kv_write(k, parts[2], i, 1, D)
            attrs = {"layer": i, "num_heads": 1, "num_kv_heads": 1, "head_dim": D}
            a = self.b.attention(self.b.cast(q, self.dtype), **attrs, scale=1.0, window=None, softcap=None)
            return self.b.add(x, self.linear(self.b.cast(a, self.dtype), f"layers.{i}.o", E))

    with pytest.raises(UnsupportedModel, match=r"numbered \[0, 2\]"):
        program(Holes(layers=2))
    kv = program(Mixed(layers=2)).kv
    assert kv.shapes == ((K, D), (1, D)) and [layer.num_kv_heads for layer in kv.layers] == [K, 1]
    assert kv.position_bytes == 2 * (K + 1) * kv.padded_head_dim * itemsize(kv.dtype)


def test_a_model_without_cache_is_refused() -> None:
    class NoAttention(Decoder):
        def attention(self, x, i):
            return x

    with pytest.raises(UnsupportedModel, match="queries of 0 types"):
        program(NoAttention())


def test_rows_that_come_with_a_step_need_no_cache() -> None:
    b = GraphBuilder()
    x = b.linear(b.cast(b.given(E, 0), "float32"), b.weight("projection.weight", (E, E), "float32"))
    graph = b.finish(hidden=b.gather_rows(x, b.logit_rows))
    kv = compile_graph(graph, FakeCatalog(), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS).kv
    assert (kv.num_layers, kv.block_bytes) == (0, 0)
