"""What Voxtral Realtime hears, against transformers; the norms that are made of its delay; what files may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo.errors import InvariantError, ModelError, UnsupportedModel
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.vision.tower import open_ear
from albireo.sounds.processor import open_sound_processor
from tiny_hearers import opened, sound, tiles
from tiny_realtime import DELAY, Theirs, features, save

LENGTHS = (1.0, 0.7713, 0.07, 2.31)


def distance(ours: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_near_to_exact_as_transformers(dtype: str, tmp_path: Path) -> None:
    """Of sounds longer and shorter than what a position sees."""
    folder = save(tmp_path, dtype)
    given = [sound(each, place) for place, each in enumerate(LENGTHS)]
    exact, theirs = ([Theirs(folder, kind).rows(each) for each in given] for kind in ("float64", dtype))
    runner = opened(folder, dtype)
    ours = [np.concatenate([runner.rows(tile) for tile in tiles(folder, each)]) for each in given]
    assert [rows.shape for rows in ours] == [rows.shape for rows in exact]
    noise = max(map(distance, theirs, exact))
    assert noise < {"bfloat16": 0.05, "float32": 4e-6}[dtype], "too rough to prove anything"
    assert max(map(distance, ours, exact)) < noise * (4 if dtype == "float32" else 1.0)


def test_spectra_are_those_of_its_extractor(tmp_path: Path) -> None:
    """With the silence around a sound that its processor has from another library."""
    for seconds in LENGTHS:
        (tile,) = tiles(save(tmp_path), sound(seconds))
        np.testing.assert_allclose(tile, features(sound(seconds))[0].numpy().T, atol=2e-5)


def test_norms_know_the_delay(tmp_path: Path) -> None:
    """1 + what two linears make of the waves of a time: transformers' own, in float64."""
    folder = save(tmp_path)
    model = Theirs(folder, "float64").model.model
    with torch.no_grad(), Checkpoint(folder) as checkpoint:
        told = model.time_embedding(torch.full((1,), float(DELAY), dtype=torch.float64))
        for number, layer in enumerate(model.language_model.layers):
            wanted = layer.post_attention_layernorm.weight * (1 + layer.ada_rms_norm(told))
            name = f"model.layers.{number}.post_attention_layernorm.weight"
            np.testing.assert_allclose(checkpoint.tensor(name).to_float32(), wanted.numpy(), rtol=1e-6)


def test_sizes(tmp_path: Path) -> None:
    """Rows of tiles that are heard, and of three minutes, which is the longest."""
    data = json.loads((save(tmp_path) / "config.json").read_text())
    tower, processor = open_ear(data, "float32", "config.json"), open_sound_processor(tmp_path, data)
    longest = processor.prepare(np.zeros(180 * 16000, np.float32)).tiles[0].shape
    for frames, bands in (longest, processor.largest_tile(), (8, 8)):
        assert tower.rows(frames, bands) == processor.rows(frames, bands) == frames // 8
    for size in ((longest[0] + 4, 8), (processor.largest_tile()[0] + 8, 8), (16, 9)):
        with pytest.raises(InvariantError, match="this tower hears 8 to 20000 of 8"):
            tower.rows(*size)


@pytest.mark.parametrize(
    ("part", "changes", "error", "says"),
    [
        ("audio_config", {"activation_function": "relu"}, UnsupportedModel, "activation_function='relu'"),
        ("audio_config", {"rope_parameters": {"rope_type": "yarn"}}, UnsupportedModel, "rope_type='yarn'"),
        ("audio_config", {"head_dim": 15}, ModelError, "head_dim=15 must be even"),
        ("audio_config", {"num_key_value_heads": 1}, UnsupportedModel, "num_key_value_heads=1"),
        ("audio_config", {"attention_bias": True}, UnsupportedModel, "attention_bias"),
        (None, {"audio_length_per_tok": 4}, UnsupportedModel, "audio_length_per_tok=4"),
    ],
)
def test_refused(part: str | None, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    data = json.loads((save(tmp_path) / "config.json").read_text())
    data = data | (changes if part is None else {part: data[part] | changes})
    with pytest.raises(error, match=says):
        open_ear(data, "float32", "config.json")


@pytest.mark.parametrize(
    ("file", "changes", "error", "says"),
    [
        ("preprocessor_config.json", {"win_length": 300}, UnsupportedModel, "win_length=300"),
        ("preprocessor_config.json", {"feature_size": 80}, ModelError, "feature_size=80 must be num_mel_bins"),
        ("preprocessor_config.json", {"padding_value": 1.0}, UnsupportedModel, "padding_value"),
        ("config.json", {"downsample_factor": 8, "audio_length_per_tok": 16}, UnsupportedModel, "downsample_factor=8"),
        ("config.json", {"default_num_delay_tokens": 208}, UnsupportedModel, "are 251 rows .* 180 s of it 250 are"),
        ("tekken.json", {"audio": {"streaming_n_left_pad_tokens": 234}}, UnsupportedModel, "=234 of tekken.json"),
        ("tekken.json", {"audio": {"transcription_delay_ms": 240}}, ModelError, "must be default_num_delay_tokens=6"),
    ],
)
def test_files_that_are_refused(
    file: str, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    path = save(tmp_path) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(error, match=says):
        open_sound_processor(tmp_path, json.loads((tmp_path / "config.json").read_text()))


def test_the_silence_before_a_sound_is_what_its_tokenizer_says(tmp_path: Path) -> None:
    path = save(tmp_path) / "tekken.json"
    said = {"audio": {"transcription_delay_ms": 480.0, "streaming_n_left_pad_tokens": 12}}
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    found = open_sound_processor(tmp_path, json.loads((tmp_path / "config.json").read_text())).prepare(sound(0.8))
    assert found.text == "[STREAMING_PAD]" * 18 and found.tiles[0].shape == (8 * (12 + 10 + 17), 8)
