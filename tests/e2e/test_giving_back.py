"""LongCat-Flash: experts that give back what they read, in graphs, programs and files; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.compiler.pipeline import compile_graph, passes_without
from albireo.errors import InvariantError, ModelError, UnsupportedModel
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import TensorType, Value
from albireo.graph.program_checks import check_program
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from backends.reference.test_interpret import Model, prompt
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

NAME = "longcat_flash"
TINY = load_architecture(NAME).tiny
OPTIONS: dict[str, Any] = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}


def test_tokens_have_experts_of_both_kinds(tmp_path: Path) -> None:
    """Else what is held to transformers would show one of them alone."""
    make_checkpoint(tmp_path, TINY, seed=3)
    model = Model(tmp_path)
    routes = [node for node in model.graph.nodes if node.op == "route"]
    values = model.step(prompt(TINY, 40, 3), keep=True).values
    assert len(routes) == TINY["num_layers"]
    for node in routes:
        gives_back = values[node.outputs[0].name] >= TINY["n_routed_experts"]
        assert 0.1 < gives_back.mean() < 0.9 and len(np.unique(gives_back.sum(axis=1))) > 1


def test_matrices_that_nobody_reads_may_be_there_or_not(tmp_path: Path) -> None:
    """transformers has gates and ups of experts that give back what they read; files of its authors have none."""
    make_checkpoint(tmp_path, TINY, seed=3)
    graph, kept = build_graph(load_config(tmp_path), 64), {}
    stored = as_written(TINY, random_weights(TINY, 3))
    for name, array in stored.items():
        expert = name.partition(".experts.")[2].partition(".")[0]
        if not expert or int(expert) < TINY["n_routed_experts"]:
            kept[name] = array
    assert len(stored) - len(kept) == 2 * TINY["num_layers"] * TINY["zero_expert_num"]
    write_safetensors(tmp_path / "model.safetensors", kept, "float32")
    with open_checkpoint(tmp_path, graph) as checkpoint:
        assert "model.layers.1.mlp.experts.9.up_proj.weight" in checkpoint.names
    del kept["model.layers.1.mlp.experts.9.up_proj.weight"]
    write_safetensors(tmp_path / "model.safetensors", kept, "float32")
    with pytest.raises(ModelError, match=r"missing.*layers\.1\.mlp\.experts\.9\.up_proj"):
        open_checkpoint(tmp_path, graph)


def test_experts_that_config_json_does_not_count_are_named(tmp_path: Path) -> None:
    """What gives back what it reads has no down projection, and nothing has a bias."""
    make_checkpoint(tmp_path, TINY, seed=3)
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "n_routed_experts": 8, "zero_expert_num": 7}))
    graph = build_graph(load_config(tmp_path), 64)
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.experts\.8\.down_proj\.weight"):
        open_checkpoint(tmp_path, graph)


def test_a_layer_that_files_tell_is_two() -> None:
    config = parse_tiny(NAME)
    assert config.num_layers == 4 and len(config.cached_layers) == 4
    assert config.experts is not None and config.experts.layers == (True, False) * 2
    assert parse_tiny(NAME, num_hidden_layers=4) == config == parse_tiny(NAME, num_layers=..., num_hidden_layers=4)
    assert parse_tiny(NAME, qk_head_dim=20, zero_expert_type=...) == config
    assert parse_tiny(NAME, num_layers=...).num_layers == 56
    none = parse_tiny(NAME, zero_expert_num=0, zero_expert_type=...).experts
    assert none is not None and none.giving_back == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_hidden_layers": 3}, ModelError, "num_hidden_layers=3 must be 2 for each of num_layers=2"),
        ({"q_lora_rank": None}, ModelError, "q_lora_rank=None must be given"),
        ({"qk_head_dim": 24}, ModelError, "qk_head_dim=24 must be 20"),
        ({"zero_expert_type": "drop"}, UnsupportedModel, "zero_expert_type='drop' is not supported"),
        ({"zero_expert_num": -1}, ModelError, "zero_expert_num=-1 must be a whole number"),
        ({"moe_topk": 16}, ModelError, "moe_topk=16|num_experts_per_tok=16"),
        ({"mla_scale_q_lora": False}, UnsupportedModel, "mla_scale_q_lora"),
        ({"mla_scale_kv_lora": False}, UnsupportedModel, "mla_scale_kv_lora"),
        ({"router_bias": True}, UnsupportedModel, "router_bias"),
        ({"norm_topk_prob": True}, UnsupportedModel, "norm_topk_prob"),
        ({"ngram_vocab_size_ratio": 0.1}, UnsupportedModel, "ngram_vocab_size_ratio"),
    ],
)
def test_what_is_not_computed(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_tiny(NAME, **changes)


def test_it_is_a_call_of_its_own_where_nothing_is_fused() -> None:
    passes = passes_without(["fuse_combine"])
    program = compile_graph(build_graph(parse_tiny(NAME), 64), CpuCatalog(isa_levels()), passes=passes, **OPTIONS)
    given = [call for call in program.calls if call.family == "combine" and "ids" in call.args]
    assert len(given) == TINY["num_layers"] and not any("residual" in call.args for call in given)


@pytest.mark.parametrize(
    ("x", "ids", "attrs"),
    [
        ("P", "T", {"num_experts": 3}),  # a row for each pair, of which ids are of tokens
        ("T", "P", {"num_experts": 3}),
        ("T", "T", {"num_experts": 0}),  # experts of whom none has a matrix
        ("T", "T", {}),
        ("T", None, {"num_experts": 3}),
    ],
)
def test_an_op_that_cannot_be(x: str, ids: str | None, attrs: dict[str, int]) -> None:
    b = GraphBuilder()
    inputs = {"x": Value("x", TensorType("float32", (x, 8))), "weights": Value("w", TensorType("float32", ("T", 2)))}
    inputs |= {} if ids is None else {"ids": Value("i", TensorType("int32", (ids, 2)))}
    with pytest.raises(InvariantError, match="combine of float32"):
        b._node("combine", inputs, **attrs)


def test_a_program_that_cannot_be() -> None:
    program = compile_graph(build_graph(parse_tiny(NAME), 64), CpuCatalog(isa_levels()), **OPTIONS)
    check_program(program)
    place = next(i for i, call in enumerate(program.calls) if call.family == "combine" and "ids" in call.args)
    call = program.calls[place]
    worse = [replace(call, args={role: name for role, name in call.args.items() if role != "ids"})]
    worse += [replace(call, attrs={}), replace(call, args={**call.args, "ids": call.args["weights"]})]
    for each in worse:
        with pytest.raises(InvariantError):
            check_program(replace(program, calls=(*program.calls[:place], each, *program.calls[place + 1 :])))


def test_config_json_of_the_published_model(tmp_path: Path) -> None:
    """Keys of meituan-longcat/LongCat-Flash-Chat."""
    said = {
        **{"architectures": ["LongcatFlashForCausalLM"], "model_type": NAME, "attention_bias": False},
        **{"auto_map": {"AutoModelForCausalLM": "modeling_longcat_flash.LongcatFlashForCausalLM"}},
        **{"vocab_size": 131072, "hidden_size": 6144, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048},
        **{"num_layers": 28, "num_attention_heads": 64, "kv_lora_rank": 512, "q_lora_rank": 1536},
        **{"qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "mla_scale_q_lora": True},
        **{"mla_scale_kv_lora": True, "routed_scaling_factor": 6.0, "n_routed_experts": 512, "rms_norm_eps": 1e-5},
        **{"max_position_embeddings": 131072, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2},
        **{"rope_theta": 10000000.0, "attention_method": "MLA", "zero_expert_num": 256, "moe_topk": 12},
        **{"zero_expert_type": "identity", "torch_dtype": "bfloat16"},
    }
    (tmp_path / "config.json").write_text(json.dumps(said))
    config = load_config(tmp_path)
    assert (config.num_layers, config.num_heads, config.head_dim, config.intermediate_size) == (56, 64, 576, 12288)
    experts = config.experts
    assert experts is not None and (experts.count, experts.giving_back, experts.top_k) == (512, 256, 12)
    assert (experts.width, experts.factor, experts.renormalize) == (2048, 6.0, False)
