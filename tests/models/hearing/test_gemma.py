"""What config.json may say of how Gemma 3n and 4 hear: all that transformers writes of published sizes, and what is
refused; and a sound that is heard in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models.vision.tower import hears, open_ear
from tiny_hearers import opened, save, sound, tiles

transformers = pytest.importorskip("transformers")

#: Of each: config of the whole, whose sizes are those that were published; frames of 30 s, bands, and rows.
SIZES = {
    "gemma3n": ("Gemma3nConfig", (2997, 128), 189),
    "gemma4": ("Gemma4Config", (2999, 128), 750),
    "gemma4_unified": ("Gemma4UnifiedConfig", (750, 640), 750),
}


@pytest.mark.parametrize("name", SIZES)
def test_all_that_transformers_writes(name: str) -> None:
    kind, size, rows = SIZES[name]
    of_sounds = getattr(transformers, kind.replace("Config", "AudioConfig"))()
    data = json.loads(getattr(transformers, kind)(audio_config=of_sounds).to_json_string())
    assert hears(data)
    assert open_ear(data, "bfloat16", "config.json").rows(*size) == rows


def test_a_model_without_sounds() -> None:
    assert not hears({"model_type": "gemma4", "vision_config": {}, "audio_config": None})


@pytest.mark.parametrize("name", ["gemma3n", "gemma4"])
def test_pieces_are_no_part_of_what_is_heard(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any size, the last of one row, too: rows are the same but for the last bits."""
    folder = save(tmp_path, name)
    (tile,) = tiles(folder, sound(1.0))
    found = []
    for rows in (64, 5, 4, 1):
        monkeypatch.setattr("albireo.models.hearing.usm_stem._PIECE", rows)
        found.append(opened(folder).rows(tile))
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], atol=2e-5)


@pytest.mark.parametrize(
    ("name", "changes", "error", "says"),
    [
        ("gemma4", {"attention_context_right": 1}, UnsupportedModel, "attention_context_right"),
        ("gemma4", {"attention_chunk_size": 9}, UnsupportedModel, "attention_chunk_size=9 is not supported; .* 4, or"),
        ("gemma4", {"attention_invalid_logits_value": -1.0}, UnsupportedModel, "attention_invalid_logits_value"),
        ("gemma4", {"subsampling_conv_channels": [6, 4]}, ModelError, "the first must be a multiple of 4"),
        ("gemma4", {"subsampling_conv_channels": [8]}, ModelError, "must be two numbers"),
        ("gemma4", {"gradient_clipping": -1.0}, ModelError, "gradient_clipping"),
        ("gemma4", {"conv_kernel_size": 99}, ModelError, "conv_kernel_size"),
        ("gemma4", {"model_type": "gemma3n_audio"}, UnsupportedModel, "supported here: gemma4_audio"),
        ("gemma3n", {"conf_attention_context_right": 1}, UnsupportedModel, "conf_attention_context_right"),
        ("gemma3n", {"sscp_conv_kernel_size": [[3, 3], [5, 3]]}, UnsupportedModel, "supported: 3 of both sides"),
        ("gemma3n", {"vocab_offset": 5}, ModelError, "must be one of .* tokens from audio_config.vocab_offset=5 on"),
        ("gemma3n", {"conf_reduction_factor": 3}, ModelError, "as many rows as 30 s have"),
        ("gemma4_unified", {"output_proj_dims": 20}, UnsupportedModel, "as audio_embed_dim has it, it is 500"),
    ],
)
def test_refused(name: str, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, name) / "config.json").read_text())
    data["audio_config"] |= changes
    with pytest.raises(error, match=says):
        open_ear(data, "float32", "config.json")


def test_weights_that_are_no_table_of_its_tokens(tmp_path: Path) -> None:
    path = save(tmp_path, "gemma3n") / "config.json"
    data = json.loads(path.read_text())
    data["audio_config"]["vocab_size"] += 1
    path.write_text(json.dumps(data))
    with pytest.raises(WeightMismatch, match=r"embed_audio.embedding.weight has shape"):
        opened(tmp_path)


@pytest.mark.parametrize("shape", [(), (3,), (5, 1, 48)])
def test_convolutions_of_another_size(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Of which others are made: a scalar, too, is told by its name."""
    from safetensors.numpy import load_file, save_file

    path = save(tmp_path, "gemma4") / "model.safetensors"
    name = "model.audio_tower.layers.0.lconv1d.depthwise_conv1d.weight"
    tensors = load_file(path)
    assert name in tensors and tensors[name].shape != shape
    save_file({**tensors, name: np.zeros(shape, np.float32)}, path)
    with pytest.raises(WeightMismatch, match=r"taps' is made of .*depthwise_conv1d.weight, which have other shapes"):
        opened(tmp_path)
