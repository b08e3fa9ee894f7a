"""GGUF files as they are found: of other versions of the converters, with other switches, or no models at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.sources.locate import locate_model
from albireo.api.tokenizer import gguf_as_files
from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models import load_config
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.gguf.recommended import read_recommended
from models.gguf.conversions import CONVERSIONS, write
from models.gguf.test_architectures import CASES, both, conversion_of
from models.gguf.test_models import logits_of
from models.gguf.writer import LLAMA, Array, gguf, words, write_gguf
from models.transformers_logits import distance
from tiny_models import random_weights


@pytest.mark.parametrize("name", ["qwen3", "granitemoe", "arcee"])
def test_queries_keys_and_values_joined_by_a_converter(name: str, tmp_path: Path) -> None:
    """As --fuse-qkv does it, of any architecture."""

    def joined(each: str, array: Array, c: Mapping[str, Any]) -> Any:
        for new, numbers in conversion.change(each, array, c):
            layer, _, part = new.partition(".self_attn.")
            if part in ("q_proj.weight", "k_proj.weight", "v_proj.weight"):
                parts.setdefault(layer, []).append(numbers)
                if len(parts[layer]) == 3:
                    yield f"blk.{layer.rpartition('.')[2]}.attn_qkv.weight", np.concatenate(parts[layer])
            else:
                yield new, numbers

    conversion, parts = conversion_of(name), dict[str, list[Array]]()
    checkpoint, file = both(tmp_path, name, replace(conversion, change=joined))
    assert len(parts) == CASES[name]["num_hidden_layers"]
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


@pytest.mark.parametrize("name", ["nemotron_nas, all attend", "nemotron_nas, the first does not attend"])
def test_layers_that_differ_in_heads_and_say_no_width_of_them(name: str, tmp_path: Path) -> None:
    """As of DeciLM 7B, whose layers all attend: a head has what there is of the width of the model."""
    no_widths = {"attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None}
    checkpoint, file = both(tmp_path, name, settings=no_widths)
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


def test_experts_one_by_one(tmp_path: Path) -> None:
    """As files of Mixtral had it until the spring of 2024."""

    def change(weights: dict[str, Array]) -> None:
        for name in [each for each in weights if ".experts." in each]:
            layer, expert, part = (name.split(".")[i] for i in (2, 5, 6))
            weights[f"blk.{layer}.ffn_{part.removesuffix('_proj')}.{expert}.weight"] = weights.pop(name)

    checkpoint, file = both(tmp_path, "olmoe", change=change)
    assert distance(logits_of(file), logits_of(checkpoint)) < 3e-6


def test_factors_beside_matrices_of_nvfp4(tmp_path: Path) -> None:
    """Of a matrix, and of each expert; scales of activations are not needed."""
    config, number = (
        CASES["qwen3_moe"] | {"hidden_size": 64, "moe_intermediate_size": 64},
        gguf.GGMLQuantizationType["NVFP4"],
    )
    weights = random_weights(config, 5)
    write(tmp_path / "n.gguf", config, weights, CONVERSIONS["qwen3_moe"])
    reader, rng = gguf.GGUFReader(tmp_path / "n.gguf"), np.random.default_rng(3)
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "qwen3vlmoe")
    wanted: dict[str, Array] = {}
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            writer.add_key_value(key, field.contents(), field.types[0], *field.types[1:2])
    for tensor in reader.tensors:
        name, shape = tensor.name, tuple(int(n) for n in tensor.shape[::-1])
        stem = name.removesuffix(".weight")
        if not stem.endswith(("attn_q", "ffn_up_exps")):
            writer.add_tensor(name, np.array(tensor.data).reshape(shape))
            continue
        count, rows = shape[0] if len(shape) == 3 else 1, shape[-2] * (shape[0] if len(shape) == 3 else 1)
        data = rng.integers(0, 256, (rows, shape[-1] // 64, 36)).astype(np.uint8)
        data[..., :4] = rng.integers(0x20, 0x40, data[..., :4].shape)
        factors = rng.uniform(0.1, 0.4, count).astype(np.float32)
        numbers = gguf.dequantize(data.reshape(rows, -1), number).reshape(count, -1, shape[-1]) * factors[:, None, None]
        writer.add_tensor(name, data.reshape(*shape[:-1], -1), raw_dtype=number)
        writer.add_tensor(f"{stem}.scale", factors)
        writer.add_tensor(f"{stem}.input_scale", factors)
        wanted |= {f"{stem}.{i}": numbers[i] for i in range(count)}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with Checkpoint(tmp_path / "m.gguf") as stored:
        assert not [name for name in stored.names if "scale" in name]
        for name, graph in (("blk.0.attn_q.0", "self_attn.q_proj"), ("blk.1.ffn_up_exps.2", "mlp.experts.2.up_proj")):
            full = f"model.layers.{name.split('.')[1]}.{graph}.weight"
            assert stored.kind(full) == "fp4.g16" and stored.blocks(full) is None
            np.testing.assert_array_equal(stored.tensor(full).to_float32(), wanted[name])


def test_experts_that_there_are_none_of(tmp_path: Path) -> None:
    """In the table of which experts a token has."""
    name = "model.layers.0.mlp.gate.tid2eid"

    def change(weights: dict[str, Array]) -> None:
        weights[name][3, 1] = CASES["deepseek_v4"]["n_routed_experts"]

    _, file = both(tmp_path, "deepseek_v4", change=change)
    with Checkpoint(file) as stored, pytest.raises(WeightMismatch, match="tid2eid' names an expert that is none of 12"):
        stored.tensor(name)


def test_kimi_linear_without_experts_is_refused_by_name(tmp_path: Path) -> None:
    _, file = both(tmp_path, "kimi_linear", settings={"expert_count": 0})
    with pytest.raises(ModelError, match="kimi-linear: expert_count=0 must be"):
        load_config(file)


@pytest.mark.parametrize(
    ("kind", "message"), [("mmproj", "sees or hears"), ("adapter", "--lora"), ("imatrix", "counts")]
)
def test_files_that_are_no_models_say_what_they_are(kind: str, message: str, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "clip" if kind == "mmproj" else "llama")
    if kind != "mmproj":  # older ones do not say it
        writer.add_string("general.type", kind)
    writer.add_tensor("x", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModel, match=message):
        load_config(tmp_path / "m.gguf")


def test_what_a_file_recommends_for_sampling(tmp_path: Path) -> None:
    """As converters write it of generation_config.json; numbers as they were, of what is turned off nothing."""
    keys = {"temp": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "penalty_repeat": 1.1}
    keys |= {"penalty_last_n": 64, "mirostat": 0, "xtc_probability": 0.5}

    def change(writer: Any, of_architecture: dict[str, Any]) -> None:
        for key, value in keys.items():
            (writer.add_float32 if isinstance(value, float) else writer.add_int32)(f"general.sampling.{key}", value)

    write_gguf(tmp_path / "m.gguf", LLAMA, change=change, tokenizer=words)
    found = read_recommended(tmp_path / "m.gguf")
    assert (found.temperature, found.top_k, found.top_p, found.min_p) == (0.6, 20, 0.95, 0.05)
    assert found.repetition_penalty == 1.1 and found.unused == ("xtc_probability",)
    kept = json.loads(gguf_as_files(tmp_path / "m.gguf")[1]["generation_config.json"])
    assert kept["temperature"] == 0.6 and "penalty_last_n" not in kept
    keys |= {"top_p": 1.5}
    write_gguf(tmp_path / "bad.gguf", LLAMA, change=change)
    with pytest.raises(ModelError, match=r"general\.sampling: top_p=1\.5 must be"):
        read_recommended(tmp_path / "bad.gguf")
    write_gguf(
        tmp_path / "array.gguf", LLAMA, change=lambda writer, _: writer.add_array("general.sampling.top_k", [1, 2])
    )
    with pytest.raises(ModelError, match=r"general\.sampling: top_k=\[1, 2\] must be"):
        read_recommended(tmp_path / "array.gguf")
    keys = {"penalty_repeat": 1.1, "penalty_last_n": 0}  # a penalty of no tokens
    write_gguf(tmp_path / "off.gguf", LLAMA, change=change)
    assert read_recommended(tmp_path / "off.gguf").repetition_penalty is None
    write_gguf(tmp_path / "none.gguf", LLAMA, tokenizer=words)
    assert "generation_config.json" not in gguf_as_files(tmp_path / "none.gguf")[1]


@pytest.mark.parametrize(
    "name", ["mmproj-F16.gguf", "m.mmproj-f16.gguf", "imatrix_unsloth.gguf", "m-imatrix.gguf", "mtp-m.gguf"]
)
def test_what_lies_beside_a_model_is_not_counted(name: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", LLAMA)
    (tmp_path / name).write_bytes(b"GGUF")
    assert locate_model(str(tmp_path)) == tmp_path / "m.gguf"
    (tmp_path / "improjection.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="holds 2 GGUF files; give one of them: improjection"):
        locate_model(str(tmp_path))


def test_a_model_that_was_quantized_by_an_imatrix_is_a_model(tmp_path: Path) -> None:
    for name in ("m-Q4_K_M.gguf", "m-imatrix-IQ3_M.gguf"):
        write_gguf(tmp_path / name, LLAMA)
    with pytest.raises(ModelError, match="holds 2 GGUF files"):
        locate_model(str(tmp_path))
