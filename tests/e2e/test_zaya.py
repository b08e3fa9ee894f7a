"""ZAYA1: convolutions of queries and keys, tokens without an expert, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.compiler.pipeline import compile_graph
from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from backends.reference.test_interpret import Model, prompt
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

NAME = "zaya"
TINY = load_architecture(NAME).tiny
OPTIONS: dict[str, Any] = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}


def test_some_tokens_have_no_expert(tmp_path: Path) -> None:
    """Else what is held to transformers would not show what becomes of them."""
    make_checkpoint(tmp_path, TINY, seed=4)
    model = Model(tmp_path)
    values = model.step(prompt(TINY, 60, 4), keep=True).values
    chosen = np.concatenate([values[node.outputs[0].name] for node in model.graph.nodes if node.op == "route"])
    assert 0.02 < (chosen == TINY["num_experts"]).mean() < 0.6 and len(np.unique(chosen)) > 3


@pytest.mark.parametrize("cuts", [[1] * 12, [7, 1, 1, 15], [30]])
def test_chunks_give_what_the_whole_prompt_gives(cuts: list[int], tmp_path: Path) -> None:
    """Three things of a position are kept for those behind it."""
    make_checkpoint(tmp_path, TINY, seed=11)
    model, tokens = Model(tmp_path), prompt(TINY, 31, 11)
    np.testing.assert_allclose(model.logits(tokens, cuts), model.logits(tokens), rtol=0, atol=1e-5)


def test_what_is_kept_of_a_sequence() -> None:
    """A row of 72 channels, two, and half a row of values; for each of three layers."""
    config = parse_tiny(NAME)
    assert config.recurrent is not None and config.recurrent.state_bytes == 4 * 3 * (3 * 72 + 12)
    program = compile_graph(build_graph(config, 64), CpuCatalog(isa_levels()), **OPTIONS)
    assert 4 * sum(rows * columns for rows, columns in program.states.shapes) == config.recurrent.state_bytes
    assert config.cached_layers == (0, 1, 2) and config.windows == (None, 9, None)


def test_matrices_are_those_of_positions(tmp_path: Path) -> None:
    """Channels of a head of 12, of which 6 turn, are in the order of pairs; and what is missing is named."""
    make_checkpoint(tmp_path, TINY, seed=4)
    graph, tensors = build_graph(load_config(tmp_path), 64), as_written(TINY, random_weights(TINY, 4))
    block = "model.layers.1.self_attn.qkv_proj."
    order = [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]
    with open_checkpoint(tmp_path, graph) as checkpoint:
        for place in range(2):
            wanted = tensors[f"{block}conv_qk_grouped.weight"][:, order, place]
            np.testing.assert_array_equal(
                checkpoint.tensor(f"{block}conv_qk_grouped.{place}.weight").to_float32(), wanted
            )
        ago = checkpoint.tensor(f"{block}conv_qk_depthwise.1.weight").to_float32()
        np.testing.assert_array_equal(ago[:, :2], tensors[f"{block}conv_qk_depthwise.weight"][:, 0])
        assert not ago[:, 2].any()
    del tensors[f"{block}conv_qk_grouped.weight"]
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(WeightMismatch, match=r"missing.*layers\.1\.self_attn\.qkv_proj\.conv_qk_"):
        open_checkpoint(tmp_path, graph)


@pytest.mark.parametrize("place", ["beside", "of windows alone", "by other names"])
def test_the_part_that_turns_is_the_same_wherever_it_is_said(place: str, tmp_path: Path) -> None:
    """Matrices have channels in the order of pairs, which graphs and files have to agree on."""
    ropes = TINY["rope_parameters"]
    bare = {kind: {key: ropes[kind][key] for key in ("rope_type", "rope_theta")} for kind in ropes}
    said: dict[str, Any] = {"rope_parameters": bare, "partial_rotary_factor": 0.5}
    if place == "of windows alone":
        said["rope_parameters"] = {**bare, "hybrid_sliding": ropes["hybrid_sliding"]}
    if place == "by other names":
        names = {"hybrid": "full_attention", "hybrid_sliding": "sliding_attention"}
        said = {"rope_parameters": {names[kind]: ropes[kind] for kind in ropes}}
    make_checkpoint(tmp_path, TINY, seed=4)
    tokens = prompt(TINY, 12, 4)
    wanted = Model(tmp_path).logits(tokens)
    rest = {key: value for key, value in TINY.items() if key != "rope_parameters"}
    (tmp_path / "config.json").write_text(json.dumps({**rest, **said}))
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("v_proj_delayed", ()),
        ("conv_qk_grouped", (0, 2**40, 1)),
        ("conv_qk_grouped", (0, 12, 2**40)),
        ("conv_qk_depthwise", (72, 2, 2)),
    ],
)
def test_convolutions_of_other_shapes_are_named(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Empty ones, too, which may say that they are as long as they like."""
    make_checkpoint(tmp_path, TINY, seed=4)
    graph, tensors = build_graph(load_config(tmp_path), 64), as_written(TINY, random_weights(TINY, 4))
    tensors[f"model.layers.1.self_attn.qkv_proj.{name}.weight"] = np.zeros(shape, np.float32)
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(WeightMismatch, match=r"model\.layers\.1\.self_attn\.qkv_proj\."):
        open_checkpoint(tmp_path, graph)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_experts_per_tok": 2}, UnsupportedModel, "num_experts_per_tok=2 is not supported"),
        ({"layer_types": ["hybrid"] * 2}, ModelError, "layer_types=.* must be hybrid or hybrid_sliding"),
        ({"layer_types": ["full_attention"] * 3}, ModelError, "layer_types=.* must be hybrid or hybrid_sliding"),
        ({"sliding_window": None}, ModelError, "sliding_window=None must be given"),
        ({"cca_time0": 1}, ModelError, "cca_time0=1 must be a whole number from 2"),
        ({"cca_time0": 7, "cca_time1": 3}, ModelError, "cca_time1=3 must be a whole number from 1 to 2"),
        ({"shared_expert_intermediate_size": 5}, UnsupportedModel, "shared_expert_intermediate_size"),
    ],
)
def test_what_is_not_computed(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_tiny(NAME, **changes)


def test_rotations_of_different_parts_are_refused() -> None:
    ropes = {**TINY["rope_parameters"], "hybrid_sliding": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}}
    with pytest.raises(UnsupportedModel, match=r"partial_rotary_factor=1\.0 of layers with a window"):
        build_graph(parse_tiny(NAME, rope_parameters=ropes), 64)


def test_config_json_of_the_published_model(tmp_path: Path) -> None:
    """Zyphra/ZAYA1-8B says a rope_type beside the tables of its two kinds of layers."""
    said = {"architectures": ["ZayaForCausalLM"], "model_type": NAME, "torch_dtype": "bfloat16", "eos_token_id": 106}
    said |= {"rope_parameters": {**TINY["rope_parameters"], "rope_type": "default"}, "vocab_size": 262272}
    said |= {"hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 8, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(said))
    config = load_config(tmp_path)
    assert (config.num_layers, config.head_dim, config.rotary_dim, config.tie_word_embeddings) == (40, 128, 64, True)
    assert config.rope.theta == 5000000.0 and config.experts is not None and config.experts.count == 16
    del said["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert load_config(tmp_path) == config
