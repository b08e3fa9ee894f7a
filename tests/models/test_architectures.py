"""Architectures are found by file name, and by nothing else; their graphs say what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.graph.node import Graph
from albireo.models import architectures, build_graph, load_architecture, load_config
from albireo.models.config import ModelConfig, parse_config
from tiny_models import make_checkpoint, weight_shapes


def config_of(model_type: str, **changes: Any) -> ModelConfig:
    architecture = load_architecture(model_type)
    return parse_config({**architecture.tiny, **changes}, architecture.rules)


def test_every_architecture_file_is_complete() -> None:
    assert set(architectures()) >= {"llama", "mistral", "qwen2", "qwen3"}
    for name in architectures():
        architecture = load_architecture(name)
        assert architecture.tiny["model_type"] == name
        assert config_of(name).model_type == name


@pytest.mark.parametrize(
    "name",
    [
        "gpt2",
        "",
        "config",
        "layers",
        "__init__",
        "os",
        "../llama",
        "llama.py",
        "albireo.models.llama",
        "Llama",
        "a" * 500,
    ],
)
def test_nothing_else_is_imported(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="is not supported; supported: llama, mistral"):
        load_architecture(name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    with pytest.raises(UnsupportedModel, match="model_type"):
        load_config(tmp_path)


@pytest.mark.parametrize("value", [None, 3, ["llama"], {"a": 1}])
def test_a_model_type_that_is_no_string(value: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": value}))
    with pytest.raises(ModelError, match=r"model_type=.*must be a string"):
        load_config(tmp_path)


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a directory"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hf_quant_config.json", "{}", "hf_quant_config.json: quantization=None must be an object"),
        ("hf_quant_config.json", '{"quantization": {"quant_algo": "NVFP4"}}', "quant_algo='NVFP4' is not supported"),
        ("config.json", '{"quantization_config": 3}', "quantization_config=3 must be an object"),
        ("config.json", '{"quantization_config": {}}', "quant_method is missing"),
        ("config.json", '{"quantization_config": {"quant_method": "hqq"}}', "quant_method='hqq' is not.*compressed-t"),
    ],
)
def test_a_way_of_quantizing_that_is_not_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    make_checkpoint(tmp_path, load_architecture("llama").tiny)
    config = {**json.loads((tmp_path / "config.json").read_text()), **json.loads(text)}
    (tmp_path / name).write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_config(tmp_path)


@pytest.mark.parametrize("name", architectures())
def test_graph_reads_exactly_the_checkpoint(name: str) -> None:
    graph = build_graph(config_of(name), 64)
    shapes = weight_shapes(load_architecture(name).tiny)
    read: dict[str, list[int]] = {}
    for value in graph.constants.values():
        assert value.constant is not None
        assert sum(map(len, value.constant.segments)) == value.type.dims[0]
        for segment in value.constant.segments:
            assert segment.source is not None
            assert shapes[segment.source][1:] == value.type.dims[1:]
            read.setdefault(segment.source, []).extend(range(segment.start, segment.stop))
    assert {n: sorted(rows) for n, rows in read.items()} == {n: list(range(s[0])) for n, s in shapes.items()}


@pytest.mark.parametrize("name", architectures())
def test_graph_has_the_agreed_ends_and_origins(name: str) -> None:
    config = config_of(name)
    graph = build_graph(config, 64)
    assert list(graph.outputs) == ["logits", "top_ids", "top_values", "kv"]
    assert str(graph.outputs["logits"].type) == f"float32[R, {config.vocab_size}]"
    assert str(graph.outputs["top_ids"].type) == "int32[G, 65]"
    origins = list(dict.fromkeys(node.origin for node in graph.nodes))
    attn = [f"layers.0.attn.{p}" for p in ("norm", "q", "k", "v", "rope", "kv", "attention", "o")]
    mlp = [f"layers.0.mlp.{p}" for p in ("norm", "gate", "up", "act", "down")]
    assert origins[: 1 + len(attn) + len(mlp)] == ["embed", *attn, *mlp]
    assert origins[-3:] == ["head.norm", "head.logits", "head.top"]


@pytest.mark.parametrize("name", architectures())
def test_every_linear_says_how_ranks_may_share_it(name: str) -> None:
    """A new architecture that says nothing could not be cut, and would only be told so by its users."""
    roles = {"q": "heads", "k": "heads", "v": "heads", "o": "row", "gate": "ffn", "up": "ffn", "down": "row"}
    roles |= {"logits": "vocab", "top": "vocab"}
    linears = [node for node in build_graph(config_of(name), 64).nodes if node.op == "linear"]
    assert [n.attrs.get("role") for n in linears] == [roles[n.origin.rpartition(".")[2]] for n in linears]


@pytest.mark.parametrize("name", architectures())
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_written_out(name: str, dtype: str) -> None:
    """Every linear and attention reads the compute dtype; the residual stream, RoPE and norms are float32."""
    graph = build_graph(config_of(name).with_dtype(dtype), 64)
    for node in graph.nodes:
        if node.op == "linear":
            assert node.inputs["x"].type.dtype == node.inputs["weight"].type.dtype == dtype
            assert "bias" not in node.inputs or node.inputs["bias"].type.dtype == "float32"
        elif node.op == "attention":
            assert node.inputs["q"].type.dtype == dtype
        elif node.op in ("add", "rope", "rms_norm", "mul"):
            assert {v.type.dtype for r, v in node.inputs.items() if r != "positions"} == {"float32"}


def test_float32_models_have_no_casts() -> None:
    for name in architectures():
        assert not [n for n in build_graph(config_of(name), 64).nodes if n.op == "cast"]


def windows_of(graph: Graph) -> list[int | None]:
    return [n.attrs["window"] for n in graph.nodes if n.op == "attention"]


def test_a_window_no_sequence_can_notice_is_left_out() -> None:
    config = config_of("mistral", sliding_window=64)
    assert windows_of(build_graph(config, 64)) == [None, None]
    assert windows_of(build_graph(config, 65)) == [64, 64]
    assert windows_of(build_graph(config_of("qwen2"), 65)) == [None, 9, 9]


def test_tied_models_use_one_constant_twice() -> None:
    graph = build_graph(config_of("qwen3"), 64)
    table = graph.constants["model.embed_tokens.weight"]
    assert [n.op for n in graph.users()[table]] == ["embed", "linear", "linear"]
