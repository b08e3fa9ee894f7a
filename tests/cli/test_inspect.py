"""inspect: every architecture, its sizes counted by hand, and the graph and program as text."""

from __future__ import annotations

import json
import math

import pytest

from albireo.api.locate import BUNDLED
from albireo.models import architectures, load_architecture
from tiny_models import make_checkpoint, weight_shapes


@pytest.fixture(params=architectures())
def tiny(request, tmp_path):
    config = dict(load_architecture(request.param).tiny)
    return config, make_checkpoint(tmp_path / "model", config)


def test_sizes(albireo, tiny):
    config, directory = tiny
    result = albireo("inspect", directory)
    assert result.exit_code == 0, result.stderr
    parameters = sum(math.prod(shape) for shape in weight_shapes(config).values())
    assert f"({parameters:,})" in result.stdout
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    stored = -(-head_dim // 16) * 16
    assert f"{2 * config['num_hidden_layers'] * kv_heads * stored * 4:,} B per token" in result.stdout
    assert f"architecture  {config['model_type']}: {config['num_hidden_layers']} layers" in result.stdout
    assert f"{len(weight_shapes(config))} tensors of float32" in result.stdout
    assert "no usable tokenizer" in result.stdout


def test_graph_program_and_report(albireo, tiny):
    _, directory = tiny
    graph = albireo("inspect", directory, "--graph").stdout
    program = albireo("inspect", directory, "--program").stdout
    report = albireo("inspect", directory, "--report").stdout
    assert "rms_norm(" in graph
    assert "qkv_rope_kv(" not in graph
    assert "qkv_rope_kv(" in program
    assert "fuse_qkv_rope_kv" in report
    assert albireo("inspect", directory, "--graph", "--program", "--report").stdout == "\n".join(
        [graph, program, report]
    )
    assert len(albireo("inspect", directory, "--graph", "--full").stdout) >= len(graph)


def test_settings_count(albireo):
    default = albireo("inspect").stdout
    assert str(BUNDLED) in default
    assert "computed in bfloat16" in default
    wide = albireo("inspect", "--dtype", "float32").stdout
    assert "computed in float32" in wide
    assert "3,072 B per token" in default
    assert "6,144 B per token" in wide
    blocks = albireo("inspect", "--num-gpu-blocks-override", "9", "--block-size", "8").stdout
    assert "8 of 8 tokens: 64 tokens, sequences of up to 64" in blocks


def test_a_model_that_does_not_fit_is_still_described(albireo):
    result = albireo("inspect", "--memory-utilization", "0.000001")
    assert result.exit_code == 1
    assert "parameters" in result.stdout
    assert "memory_utilization" in result.stderr


def test_a_directory_without_weights(albireo, tmp_path):
    (tmp_path / "config.json").write_text((BUNDLED / "config.json").read_text())
    result = albireo("inspect", tmp_path)
    assert result.exit_code == 0
    assert "no weights in this directory" in result.stdout


def test_weights_that_do_not_fit_the_config_are_named(albireo, tmp_path):
    config = dict(load_architecture("llama").tiny)
    directory = make_checkpoint(tmp_path / "model", config)
    wider = json.loads((directory / "config.json").read_text())
    wider["intermediate_size"] *= 2
    (directory / "config.json").write_text(json.dumps(wider))
    result = albireo("inspect", directory)
    assert result.exit_code == 1
    assert "mlp" in result.stderr
