"""Dory: layers that are gone through several times, files as they were published, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.artifact.graph_json import graph_from_json, graph_to_json
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.passes.shard import problems
from albireo.compiler.pipeline import compile_graph
from albireo.errors import ModelError, UnsupportedModel
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from backends.reference.test_interpret import Model, assert_same_logits, load_torch_model, prompt, torch_logits
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

NAME = "dory"
TINY = load_architecture(NAME).tiny
OPTIONS: dict[str, Any] = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}
#: As its authors say it: attention and FFN of a layer are told apart, everywhere.
PUBLISHED = {
    "layer_types": [each for kind in TINY["layer_types"] for each in (kind, "mlp")],
    "num_hidden_layers": 8,
    "n_input_layers": 2,
    "n_recurrent_layers": 4,
    "n_output_layers": 2,
}


def published_name(name: str) -> str:
    """Of a tensor, by what transformers has in memory."""
    if not name.startswith("model."):
        return name
    if not name.startswith("model.layers."):
        return name.replace("model.embed_tokens.", "backbone.embeddings.")
    _, _, layer, rest = name.split(".", 3)
    attention, ffn = 2 * int(layer), 2 * int(layer) + 1
    own = {"lambda_1": f"{attention}.attn_alpha", "lambda_2": f"{ffn}.mlp_alpha"}
    block, _, inner = rest.partition(".")
    found = own.get(rest, f"{ffn if block == 'mlp' else attention}.mixer.{inner}")
    return f"backbone.layers.{found}".replace(".gate_proj." if block == "self_attn" else "no", ".g_proj.")


def test_files_as_they_were_published(tmp_path: Path) -> None:
    """Other names of keys and of tensors, whose numbers are twice as many: transformers reads the same of them."""
    tokens, tensors = prompt(TINY, 37, 4), as_written(TINY, random_weights(TINY, 4))
    alone = make_checkpoint(tmp_path / "alone", TINY, seed=4)
    there = make_checkpoint(tmp_path / "published", {**TINY, **PUBLISHED}, weights=random_weights(TINY, 4))
    write_safetensors(there / "model.safetensors", {published_name(n): t for n, t in tensors.items()}, "float32")
    assert load_config(there) == load_config(alone)
    ours = Model(there).logits(tokens)
    np.testing.assert_array_equal(ours, Model(alone).logits(tokens))
    assert_same_logits(ours, torch_logits(load_torch_model(there), tokens))


@pytest.mark.parametrize("number", ["9" * 5000, "x", "", "-1"])
def test_names_of_blocks_that_are_none_are_named(number: str, tmp_path: Path) -> None:
    """Also numbers of more digits than Python reads."""
    make_checkpoint(tmp_path, {**TINY, **PUBLISHED}, weights=random_weights(TINY, 4))
    tensors = {published_name(n): t for n, t in as_written(TINY, random_weights(TINY, 4)).items()}
    tensors[f"backbone.layers.{number}.mixer.q_proj.weight"] = np.zeros((1,), np.float32)
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(ModelError, match=r"model\.layers\."):
        open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64))


def test_layers_are_told_once_and_gone_through_several_times() -> None:
    config = parse_tiny(NAME, n_recurrent_loops=3)
    assert config.blocks.sphere is not None and config.blocks.sphere.order == (0, 1, 2, 1, 2, 1, 2, 3)
    assert config.num_layers == 8 and config.cached_layers == tuple(range(8))
    assert config.windows == (9, None, 9, None, 9, None, 9, None)
    graph = build_graph(config, 64)
    matrices = [name for name in graph.constants if name.endswith(".q_proj.weight")]
    assert len(matrices) == 4 and sum(node.op == "attention" for node in graph.nodes) == 8
    assert parse_tiny(NAME, n_recurrent_layers=..., layer_types=...).blocks.sphere == parse_tiny(NAME).blocks.sphere
    once = parse_tiny(NAME, n_recurrent_loops=1, recurrent_kv_cache_mode="last_loop")
    assert once.num_layers == 4
    left_out = {key: ... for key in TINY if key.startswith("n_") or key == "layer_types"}
    published = parse_tiny(NAME, num_hidden_layers=36, **left_out)
    assert published.num_layers == 36 + 20 and sum(window is None for window in published.windows) == 9 + 5


def test_signs_of_rates_say_nothing(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, TINY, seed=3)
    weights, tokens = random_weights(TINY, 3), prompt(TINY, 20, 3)
    rates = [name for name in weights if ".lambda_" in name]
    assert len(rates) == 8 and any((weights[name] < 0).any() for name in rates)
    before = Model(tmp_path).logits(tokens)
    turned = {name: -array if name in rates else array for name, array in weights.items()}
    write_safetensors(tmp_path / "model.safetensors", as_written(TINY, turned), "float32")
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), before)


def test_absolute_values_are_written_down() -> None:
    graph = build_graph(parse_tiny(NAME), 64)
    again = graph_from_json(json.loads(json.dumps(graph_to_json(graph))), "graph.json")
    told = {name: value.constant for name, value in graph.constants.items()}
    assert {name: value.constant for name, value in again.constants.items()} == told
    assert sum(each is not None and each.is_absolute for each in told.values()) == 16


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"recurrent_kv_cache_mode": "last_loop"}, UnsupportedModel, "recurrent_kv_cache_mode='last_loop' is not"),
        ({"recurrent_kv_cache_mode": "none"}, UnsupportedModel, "recurrent_kv_cache_mode='none' is not supported"),
        ({"n_recurrent_layers": 3}, ModelError, "n_recurrent_layers=3 must be 4 with 1 before and 1 behind them"),
        ({"n_recurrent_loops": 10**6}, ModelError, "n_recurrent_loops=1000000 must be a whole number"),
        ({"layer_types": ["sliding_attention"] * 3}, ModelError, "layer_types=.* must be full_attention or"),
        ({"layer_types": ["linear_attention"] * 4}, ModelError, "layer_types=.* must be full_attention or"),
        ({**PUBLISHED, "n_input_layers": 3}, ModelError, "n_input_layers=3 must be a multiple of 2"),
        ({**PUBLISHED, "layer_types": PUBLISHED["layer_types"][::-1]}, ModelError, "layer_types=.* must be"),
        ({**PUBLISHED, "layer_types": ["mlp"] * 8}, ModelError, "layer_types=.* for each of 4 layers, each with mlp"),
        ({"attention_bias": True}, UnsupportedModel, "attention_bias"),
        ({"mlp_bias": True}, UnsupportedModel, "mlp_bias"),
        ({"initializer_range": 0.0}, ModelError, "initializer_range=0.0 must be a number from"),
    ],
)
def test_what_is_not_computed(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_tiny(NAME, **changes)


def test_ranks_refuse_it() -> None:
    """Of its calls all have kernels on either machine."""
    graph = build_graph(parse_tiny(NAME), 64)
    assert all(compile_graph(graph, each, **OPTIONS).calls for each in (CpuCatalog(isa_levels()), CudaCatalog()))
    assert problems(graph, 2) == ["no linear of the graph has a role"]
