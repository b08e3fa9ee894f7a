"""Mistral Large 4: whose latents a layer reads, what frequencies are made of, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError, ModelError, UnsupportedModel, WeightMismatch
from albireo.graph.program_checks import check_program
from albireo.models import build_graph, load_architecture, load_config
from backends.reference.test_interpret import Model, prompt
from tiny_models import as_written, make_checkpoint, parse_tiny, random_weights, write_safetensors

NAME = "mistral_large4_text"
TINY = load_architecture(NAME).tiny
OPTIONS: dict[str, Any] = {"maxima": {"T": 16, "R": 4, "G": 4}, "block_size": 16, "max_positions": 64}


def test_whose_latents_a_layer_reads() -> None:
    """Three of five layers leave latents, 32 numbers and where they rotate 8; three choose, by keys of 12."""
    config = parse_tiny(NAME)
    assert config.cached_layers == (0, 1, 2) and [config.cache_of(layer) for layer in range(5)] == [0, 1, 2, 1, 2]
    assert [config.shares(layer) for layer in range(5)] == [False] * 3 + [True] * 2
    assert config.kv_shapes == ((1, 40), (1, 40), (1, 32), (1, 12), (1, 12), (1, 12))
    program = compile_graph(build_graph(config, 64), CpuCatalog(isa_levels()), **OPTIONS)
    assert program.kv.position_bytes == 4 * (48 + 48 + 32 + 3 * 16)  # each in steps of 16
    own = parse_tiny(NAME, kv_source_layers=...)
    assert own.cached_layers == (0, 1, 2, 3, 4)


def test_layers_that_share_read_what_was_left(tmp_path: Path) -> None:
    """Numbers of a layer that has none of its own change what layers that read them give."""
    make_checkpoint(tmp_path, TINY, seed=3)
    tokens = prompt(TINY, 30, 3)
    before = Model(tmp_path).logits(tokens)
    weights = random_weights(TINY, 3)
    names = {name for name in weights if ".kv_a_proj_with_mqa." in name}
    assert names == {f"model.layers.{layer}.self_attn.kv_a_proj_with_mqa.weight" for layer in range(3)}
    weights["model.layers.4.self_attn.v_up_proj.weight"] *= 2
    write_safetensors(tmp_path / "model.safetensors", as_written(TINY, weights), "float32")
    assert np.abs(Model(tmp_path).logits(tokens) - before).max() > 1e-3


def test_frequencies_are_made_of_a_tensor(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, TINY, seed=3)
    tensors = as_written(TINY, random_weights(TINY, 3))
    config, plain = load_config(tmp_path), parse_tiny(NAME)
    alpha = tensors["model.rotary_emb.alpha"]
    assert config.rope.log_factors == tuple(alpha.tolist()) and len(set(config.rope.log_factors)) > 1
    assert replace(config, rope=plain.rope) == plain

    def turning(each: Any) -> np.ndarray:
        ropes = [node.attrs["rope"] for node in build_graph(each, 64).nodes if node.op == "rope"]
        return np.array(next(rope.inv_freq for rope in ropes if len(rope.inv_freq) == 4 and any(rope.inv_freq)))

    np.testing.assert_allclose(turning(config), turning(plain) * np.exp(alpha), rtol=1e-6)
    del tensors["model.rotary_emb.alpha"]
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(WeightMismatch, match=r"there is no tensor model\.rotary_emb\.alpha"):
        load_config(tmp_path)
    tensors["model.rotary_emb.alpha"] = alpha[:3]
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(ModelError, match="log_factors has 3 numbers; heads of 8 need 4"):
        build_graph(load_config(tmp_path), 64)
    tensors["model.rotary_emb.alpha"] = np.zeros((3, 1000), np.float32)
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(WeightMismatch, match=r"alpha has 3000 numbers, \[3, 1000\]; frequencies of a head are 2048"):
        load_config(tmp_path)
    tensors["model.rotary_emb.alpha"] = alpha + np.float32(np.inf)
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(ModelError, match=r"log_factors=.* must be a list of numbers from -40 to 40"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kv_source_layers": [0, 1, 2, 1]}, ModelError, "must be a list of layers, one for each of 5"),
        ({"kv_source_layers": [0, 1, 2, 1, 3]}, ModelError, "must say of layer 4 itself, or one before it"),
        ({"kv_source_layers": [0, 2, 2, 3, 4]}, ModelError, "must say of layer 1 itself, or one before it"),
        ({"kv_source_layers": [0, 1, 2, 2, 4]}, ModelError, "must not say 2 of layer 3: one of them alone rotates"),
        ({"kv_source_layers": [0, 1, 2, True, 4]}, ModelError, "must be a list of layers"),
        # transformers would take what layer 2 wrote
        (
            {"kv_source_layers": [0, 1, 2, 1, 2], "no_rope_layers": [0] * 5},
            ModelError,
            "must say 2 of layer 3, the last of its kind that others share",
        ),
        ({"no_rope_layers": [1, 0]}, ModelError, "no_rope_layers=.* must be a list of 0 and 1"),
        ({"qk_nope_head_dim": 11}, ModelError, "qk_nope_head_dim=11 must be even"),
        ({"q_lora_rank": 20}, UnsupportedModel, "q_lora_rank=20 is not supported"),
        ({"norm_topk_prob": False}, UnsupportedModel, "norm_topk_prob=False is not supported"),
        ({"n_group": 2}, UnsupportedModel, "n_group=2 is not supported"),
        ({"indexer_types": ["shared"] + ["full"] * 4}, ModelError, "and full of the first"),
        ({"mlp_bias": True}, UnsupportedModel, "mlp_bias"),
    ],
)
def test_what_is_not_computed(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_tiny(NAME, **changes)


def test_a_program_that_cannot_be() -> None:
    program = compile_graph(build_graph(parse_tiny(NAME), 64), CpuCatalog(isa_levels()), **OPTIONS)
    check_program(program)
    place = next(i for i, call in enumerate(program.calls) if call.family == "rope" and "slope" in call.args)
    call = program.calls[place]
    without = {role: name for role, name in call.args.items() if role != "slope"}
    attrs = {name: value for name, value in call.attrs.items() if name != "ahead"}
    norm = next(each.args["weight"] for each in program.calls if each.family == "norm")
    for each in (
        replace(call, args=without),
        replace(call, attrs=attrs),
        replace(call, args=without | {"slope": norm}),
    ):
        with pytest.raises(InvariantError):
            check_program(replace(program, calls=(*program.calls[:place], each, *program.calls[place + 1 :])))


def test_config_json_of_the_published_model(tmp_path: Path) -> None:
    """What the class has where mistralai/Mistral-Large-4-1T-A52B leaves it out."""
    whole = {"model_type": "mistral_large4", "architectures": ["MistralLarge4ForConditionalGeneration"]}
    whole |= {
        "text_config": {"model_type": NAME},
        "torch_dtype": "bfloat16",
        "vision_config": {"model_type": "pixtral"},
    }
    (tmp_path / "config.json").write_text(json.dumps(whole))
    ours = load_config(tmp_path)
    theirs = pytest.importorskip("transformers").AutoConfig.from_pretrained(tmp_path).text_config
    assert (ours.num_layers, ours.hidden_size, ours.num_heads) == (72, 6144, 64)
    assert ours.rotates == tuple(bool(each) for each in theirs.no_rope_layers)
    assert (ours.rope.theta, ours.rope.factor) == (theirs.rope_parameters["rope_theta"], 2048.0)
    assert ours.multipliers.logits_cap == theirs.final_logit_softcapping == 30.0
    assert ours.of_layer(0).head_dim == 576 and ours.of_layer(3).head_dim == 512
    assert ours.blocks.index is not None and ours.blocks.index.own == (True,) * 72
    assert ours.experts is not None and (ours.experts.count, ours.experts.top_k) == (128, 4)
    assert ours.experts.layers == tuple(kind == "sparse" for kind in theirs.mlp_layer_types)
