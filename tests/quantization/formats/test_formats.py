"""Every format: encodings known from headers, numbers equal to the format's own, whole models equal to transformers."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.encodings import encoding
from albireo.errors import ModelError, WeightMismatch
from albireo.json_file import Fields
from albireo.models import build_graph, load_config, open_checkpoint
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.settings.quantized import quantization_format
from albireo.quantization.formats.left_out import parse_left_out
from quantization.formats.writers import TINY, WRITERS, Writer, compressed, save_file, write_model
from step_batches import Work, make_step
from tiny_models import weight_shapes, write_safetensors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
load_file = pytest.importorskip("safetensors.torch").load_file
LINEAR = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize("name", WRITERS)
def test_numbers_are_those_of_the_format(name: str, tmp_path: Path) -> None:
    writer = WRITERS[name]
    numbers = write_model(tmp_path, writer)
    graph = build_graph(load_config(tmp_path), 64)
    with open_checkpoint(tmp_path, graph) as checkpoint:
        linears = {n for n in numbers if n.endswith("_proj.weight")}
        assert checkpoint.encodings == (dict.fromkeys(linears, writer.encoding) if writer.encoding else {})
        settings = quantization_format(tmp_path)
        assert settings is not None
        foreseen = {settings.foreseen(weight.removesuffix(".weight")) for weight in linears}
        # an order of inputs that no config of that age mentions
        assert foreseen == {"int4.g32" if name == "compressed-tensors W4A16 actorder" else writer.encoding}
        assert set(checkpoint.names) == set(weight_shapes(TINY))
        for weight, wanted in numbers.items():
            assert checkpoint.shape(weight) == wanted.shape
            got = checkpoint.tensor(weight).to_float32()
            # one or two roundings to float32, in another order than theirs
            np.testing.assert_allclose(got, wanted, rtol=3e-7, atol=1e-9)
            checkpoint.release(weight)
        for weight in checkpoint.encodings:
            matrix = checkpoint.encoded(weight)
            assert matrix.encoding == encoding(checkpoint.encodings[weight])
            assert matrix.shape == numbers[weight].shape
            np.testing.assert_array_equal(matrix.decode(), checkpoint.tensor(weight).to_float32())
            if matrix.encoding.kind == "integer" and matrix.encoding.group:
                assert not (matrix.scale.view(np.uint32) & 0xFF).any(), "a zero is stored in these bits"


@pytest.mark.parametrize("name", WRITERS)
def test_whole_models_equal_transformers(name: str, tmp_path: Path) -> None:
    """Ours from the quantized file, theirs from a file of the numbers that the format's own rule gives."""
    numbers = write_model(tmp_path / "quantized", WRITERS[name], seed=2)
    ids = [5, 17, 3, 90, 44, 8, 61]
    config = load_config(tmp_path / "quantized")
    graph = build_graph(config, 64)
    with open_checkpoint(tmp_path / "quantized", graph) as checkpoint:
        weights = {weight: checkpoint.tensor(weight).to_float32() for weight in checkpoint.names}
    ours = interpret(graph, make_step([Work(ids, 0, [0])], 16), weights, ReferenceKV(1, 16))["logits"]
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**TINY), attn_implementation="eager", dtype=torch.float32
    )
    model.load_state_dict({weight: torch.tensor(array) for weight, array in numbers.items()})
    with torch.no_grad():
        theirs = model.eval()(torch.tensor([ids])).logits[0].numpy()
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 3e-6


def test_a_checkpoint_may_have_some_matrices_in_each_of_two_formats(tmp_path: Path) -> None:
    """ModelOpt's MIXED_PRECISION: what a matrix is, its tensors say; without tensors, the config does."""
    first, second = WRITERS["modelopt nvfp4"], WRITERS["modelopt fp8"]
    layers = {"model.language_model.layers.0.mlp": {"quant_algo": "NVFP4", "group_size": 16}}
    layers |= {f"model.language_model.layers.0.self_attn.{p}_proj": {"quant_algo": "FP8"} for p in "qkvo"}
    config = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    found = iter(("fp8",) * 4 + ("fp4.g16",) * 3)
    encodings: dict[str, str] = {}

    def write(weight: Any) -> Any:
        kind = next(found)
        return (second if kind == "fp8" else first).write(weight)

    numbers = write_model(tmp_path, Writer({**config, "ignore": ["lm_head"]}, write, None))
    for name in (name for name in numbers if name.endswith("_proj.weight")):
        encodings[name] = "fp8" if "self_attn" in name else "fp4.g16"
    with open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64)) as checkpoint:
        assert checkpoint.encodings == encodings and not checkpoint.is_weight_only
        for weight, wanted in numbers.items():
            np.testing.assert_allclose(checkpoint.tensor(weight).to_float32(), wanted, rtol=3e-7, atol=1e-9)
    settings = quantization_format(tmp_path)
    assert settings is not None and settings.foreseen("lm_head") is None
    assert {n: settings.foreseen(n.removesuffix(".weight")) for n in encodings} == encodings


def test_an_order_of_zeros_throughout_is_none(tmp_path: Path) -> None:
    """Programs that order nothing leave g_idx so; no program puts all inputs into the first of several groups."""
    numbers = write_model(tmp_path, WRITERS["gptq"])
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({n: t * 0 if n.endswith("g_idx") else t for n, t in tensors.items()}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.encodings[LINEAR] == "int4.g32"
        np.testing.assert_allclose(checkpoint.tensor(LINEAR).to_float32(), numbers[LINEAR], rtol=3e-7)


def test_groups_of_float8_that_an_encoding_has_stay_float8(tmp_path: Path) -> None:
    form = {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 128}
    numbers = write_model(tmp_path, compressed("float-quantized", **form))
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.encodings[LINEAR] == "fp8.g128" and not checkpoint.notes
        np.testing.assert_allclose(checkpoint.tensor(LINEAR).to_float32(), numbers[LINEAR], rtol=3e-7)


def test_a_block_may_be_written_as_text(tmp_path: Path) -> None:
    """As compressed-tensors did at first."""
    numbers = write_model(tmp_path, WRITERS["compressed-tensors fp8 block"])
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["block_structure"] = "128x128"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.encodings[LINEAR] == "fp8.g128"
        np.testing.assert_allclose(checkpoint.tensor(LINEAR).to_float32(), numbers[LINEAR], rtol=3e-7)


def test_the_smallest_code_of_int8_is_kept(tmp_path: Path) -> None:
    """compressed-tensors writes -128 for the largest number of a row when that is negative."""
    write_model(tmp_path, WRITERS["compressed-tensors W8A8 channel"])
    with Checkpoint(tmp_path) as checkpoint:
        codes = checkpoint.encoded(LINEAR).codes
    assert (codes == 0).any() and (codes == 255).any()


def test_notes_say_what_is_not_kept(tmp_path: Path) -> None:
    write_model(tmp_path / "order", WRITERS["gptq desc_act"])
    write_model(tmp_path / "static", WRITERS["modelopt fp8"])
    write_model(tmp_path / "plain", WRITERS["gptq"])
    with Checkpoint(tmp_path / "order") as checkpoint:
        (note,) = checkpoint.notes
        assert note.startswith("7 matrices of 0.1 MiB in the file: groups of inputs in any order (desc_act, g_idx)")
    with Checkpoint(tmp_path / "static") as checkpoint:
        assert checkpoint.notes == [
            "7 tensors: activations are scaled token by token, so the static scales of the checkpoint are not used"
        ]
    with Checkpoint(tmp_path / "plain") as checkpoint:
        assert checkpoint.notes == []


@pytest.mark.parametrize(
    ("name", "file", "settings"),
    [
        ("modelopt fp8", "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}),
        ("gptq", "quantize_config.json", {"bits": 4, "group_size": 32, "desc_act": False, "damp_percent": 0.01}),
        ("awq", "quant_config.json", {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}),
    ],
)
def test_a_file_beside_may_say_so(name: str, file: str, settings: dict[str, Any], tmp_path: Path) -> None:
    write_model(tmp_path, WRITERS[name])
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / file).write_text(json.dumps(settings))
    assert load_config(tmp_path).hidden_size == 128
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.encodings[LINEAR] == WRITERS[name].encoding


@pytest.mark.parametrize(
    ("name", "change", "is_weight_only"),
    [
        ("fp8 blocks", {}, False),
        ("modelopt fp8", {}, False),
        ("modelopt fp8", {"quant_algo": "FP8_PB_WO"}, True),
        ("compressed-tensors fp8 channel", {}, True),
        ("compressed-tensors fp8 channel", {"num_bits": 8, "type": "float", "dynamic": True}, False),
        ("awq", {}, False),
    ],
)
def test_what_a_checkpoint_says_of_activations(
    name: str, change: dict[str, Any], is_weight_only: bool, tmp_path: Path
) -> None:
    """It is kept in the graph: what meets such a matrix stays at 16 bits on every device."""
    write_model(tmp_path, WRITERS[name])
    config = json.loads((tmp_path / "config.json").read_text())
    if "type" in change:
        config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = change
    else:
        config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.is_weight_only == is_weight_only
    graph = CheckpointSource(tmp_path, "bfloat16").graph(64)
    assert any("keeps" in node.attrs for node in graph.nodes) == is_weight_only


def test_a_bias_of_zeros_changes_nothing(tmp_path: Path) -> None:
    """Old GPTQ files have one for every linear."""
    write_model(tmp_path, WRITERS["gptq"])
    name = LINEAR.replace("weight", "bias")
    for value, refused in ((0.0, False), (0.5, True)):
        tensors = load_file(tmp_path / "model.safetensors") | {name: torch.full((128,), value, dtype=torch.float16)}
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(WeightMismatch, match="1 extra: ") if refused else nullcontext():
            open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64)).close()


def test_decoded_numbers_outlive_release_until_others_are_needed(tmp_path: Path) -> None:
    """Packing asks for all parts of a merged matrix, and releases them slice by slice while it still reads."""
    numbers = write_model(tmp_path, WRITERS["awq"])
    parts = [f"model.layers.0.self_attn.{p}_proj.weight" for p in "qkv"]
    with Checkpoint(tmp_path) as checkpoint:
        first = [checkpoint.tensor(part).address for part in parts]
        for part in parts:
            checkpoint.release(part)
        assert [checkpoint.tensor(part).address for part in parts] == first
        for part in parts:
            checkpoint.release(part)
        checkpoint.tensor(LINEAR)
        assert list(checkpoint._decoded) == [LINEAR]
        np.testing.assert_allclose(checkpoint.tensor(parts[0]).to_float32(), numbers[parts[0]], rtol=3e-7)


def test_a_plain_checkpoint_has_no_encodings(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"w": np.ones((2, 3), np.float32)}, "bfloat16")
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.encodings == {} and checkpoint.notes == []


DOWN = ("model.layers.0.mlp.down_proj", "model.layers.10.mlp.down_proj")


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("lm_head", {"lm_head"}),
        ("down_proj", set(DOWN)),
        ("model.layers.0.", {"model.layers.0.mlp.down_proj"}),
        ("model.layers.*.mlp", {*DOWN, "model.layers.1.mlp.up_proj"}),
        ("re:.*layers.1\\d.*", {"model.layers.10.mlp.down_proj"}),
        ("proj", set()),
    ],
)
def test_what_a_config_leaves_out(pattern: str, left_out: set[str]) -> None:
    fields = Fields({"ignore": [pattern]}, "config")
    modules = ("lm_head", *DOWN, "model.layers.1.mlp.up_proj")
    found = parse_left_out(fields, "ignore")
    assert {module for module in modules if module in found} == left_out
    with pytest.raises(ModelError, match=r"ignore='re:\(' is no regular expression"):
        parse_left_out(Fields({"ignore": ["re:("]}, "config"), "ignore")
