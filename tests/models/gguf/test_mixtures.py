"""Mixtures of experts in GGUF files: all experts of a layer are one tensor there, and a matrix each here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albireo.errors import WeightMismatch
from albireo.models import load_architecture, load_config
from albireo.models.config_keys import parse_config
from albireo.models.gguf.header import Entry
from albireo.models.gguf.names import renamed
from models.gguf.test_models import IDS, logits_of
from models.gguf.writer import MIXTURES, write_gguf
from models.transformers_logits import distance, logits_by_transformers


@pytest.mark.parametrize("kind", ["F32", "mixed"])
@pytest.mark.parametrize("name", MIXTURES)
def test_whole_models_equal_transformers(name: str, kind: str, tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "m.gguf", MIXTURES[name], kind, seed=3)
    off = distance(logits_of(tmp_path / "m.gguf"), logits_by_transformers(MIXTURES[name], numbers, IDS))
    assert off < (3e-6 if kind == "F32" else 1e-4), off


@pytest.mark.parametrize("name", MIXTURES)
def test_settings_are_those_of_config_json(name: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", MIXTURES[name], "F16")
    got = load_config(tmp_path / "m.gguf")
    config = {**MIXTURES[name], "dtype": "float16", "rms_norm_eps": got.rms_norm_eps}
    config |= {"use_sliding_window": False} if name == "qwen2_moe" else {}
    if name not in ("mixtral", "gpt_oss"):
        config.pop("num_local_experts")
    assert got == parse_config(config, load_architecture(name).rules), "a router of float32 says nothing of the others"


def test_experts_that_are_no_matrices_are_refused() -> None:
    with pytest.raises(WeightMismatch, match="must be a matrix for each of at most 4096 experts"):
        renamed({"blk.0.ffn_up_exps.weight": Entry("F32", (4, 8), 0, 128)}, "llama", "m.gguf")
    with pytest.raises(WeightMismatch, match="is \\[5000, 2, 2\\]"):
        renamed({"blk.0.ffn_up_exps.weight": Entry("F32", (5000, 2, 2), 0, 80000)}, "llama", "m.gguf")
    found = renamed({"blk.3.ffn_down_exps.weight": Entry("F32", (2, 4, 8), 0, 256)}, "qwen3moe", "m.gguf")
    assert found["model.layers.3.mlp.experts.1.down_proj.weight"] == Entry("F32", (4, 8), 128, 256)
    assert np.prod(found["model.layers.3.mlp.experts.0.down_proj.weight"].shape) == 32
