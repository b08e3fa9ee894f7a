"""Gemma 4 with embeddings of layers: a table as large as the model, and layers that read the caches of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.programs import compile_program
from albireo.config import EngineConfig
from albireo.errors import WeightMismatch
from albireo.models import build_graph, load_config, open_checkpoint
from backends.reference.test_interpret import Model, assert_same_logits, prompt
from tiny_models import make_checkpoint, random_weights, write_safetensors
from variants import tiny_of

NAME = "gemma4_text, embeddings of layers"
TABLE = "model.embed_tokens_per_layer.weight"


@pytest.mark.parametrize("dtype", ["auto", "float32", "float16"])
def test_the_table_stays_in_the_type_that_it_is_stored_in(dtype: str, tmp_path: Path) -> None:
    config = load_config(make_checkpoint(tmp_path, tiny_of(NAME), dtype="bfloat16")).with_dtype(dtype)
    graph = build_graph(config, 64)
    assert graph.constants[TABLE].type.dtype == "bfloat16"
    assert graph.constants["model.embed_tokens.weight"].type.dtype == config.dtype
    program = compile_program(graph, EngineConfig(), 64)
    (call,) = (call for call in program.calls if call.family == "embed" and call.args["table"].startswith(TABLE))
    assert program.constants[call.args["table"]].packing == "row.bfloat16"


def test_it_is_read_exactly_where_other_types_are_computed(tmp_path: Path) -> None:
    """What float16 cannot hold is there, too."""
    make_checkpoint(tmp_path, tiny_of(NAME) | {"final_logit_softcapping": None}, seed=4, dtype="bfloat16")
    tokens = prompt(tiny_of(NAME), 20, 3)
    exact = Model(tmp_path, "float32").logits(tokens)
    assert_same_logits(Model(tmp_path, "float16").logits(tokens), exact, tolerance=0.02)


def test_what_makes_keys_and_values_of_layers_that_share_may_lie_there(tmp_path: Path) -> None:
    """As in the published files, of which transformers reads no such thing either."""
    make_checkpoint(tmp_path, tiny_of(NAME))
    tokens, tensors = prompt(tiny_of(NAME), 20, 3), random_weights(tiny_of(NAME), 0)
    wanted = Model(tmp_path).logits(tokens)
    attention = "model.layers.3.self_attn"
    for part in ("k_proj", "v_proj", "k_norm"):
        tensors[f"{attention}.{part}.weight"] = np.ones((32, 48), np.float32)
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    np.testing.assert_array_equal(Model(tmp_path).logits(tokens), wanted)
    tensors[f"{attention}.k_scale"] = np.ones(32, np.float32)
    write_safetensors(tmp_path / "model.safetensors", tensors, "float32")
    with pytest.raises(WeightMismatch, match=rf"extra:.*{attention}\.k_scale"):
        Model(tmp_path)


def test_layers_that_share_have_no_part_of_a_block(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"num_kv_shared_layers": 0}
    program, other = (
        compile_program(build_graph(load_config(make_checkpoint(tmp_path / name, config)), 64), EngineConfig(), 64)
        for name, config in (("shared", tiny_of(NAME)), ("own", tiny_of(NAME) | changes))
    )
    assert program.kv.shapes == ((2, 16), (2, 16), (2, 32))
    assert other.kv.shapes == (*program.kv.shapes, (2, 16), (2, 32))
    read = [call.attrs["layer"] for call in program.calls if call.family == "attention"]
    assert read == [0, 1, 2, 1, 2]
    with open_checkpoint(tmp_path / "own", build_graph(load_config(tmp_path / "own"), 64)) as checkpoint:
        assert "model.layers.4.self_attn.k_proj.weight" in checkpoint
