"""When rows of Music Flamingo are heard: against transformers, minutes into a sound; and what files may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo.errors import ModelError, UnsupportedModel
from albireo.models.hearing.musicflamingo import MusicFlamingoTower
from albireo.models.settings.text_part import text_settings
from albireo.models.vision.tower import open_ear
from albireo.sounds.processor import open_sound_processor
from tiny_hearers import save, sound

transformers = pytest.importorskip("transformers")
NAME = "musicflamingo"


def test_angles_are_those_of_transformers(tmp_path: Path) -> None:
    """Of published numbers, to the 20th minute: as near to exact as its float32 is."""
    modeling = pytest.importorskip("transformers.models.musicflamingo.modeling_musicflamingo")
    config = transformers.MusicFlamingoConfig()
    data = json.loads(config.to_json_string())
    tower = open_ear(data, "float32", "config.json")
    assert isinstance(tower, MusicFlamingoTower) and tower.turned == 256
    rotates = modeling.MusicFlamingoRotaryEmbedding(config).double()
    for number in (0, 1, 39):
        times = torch.tensor([[number]]) * 750 * 0.04 + torch.arange(750, dtype=torch.float64) * 0.04
        cos, sin = rotates(times, seq_len=750)
        ours = tower._angles(750, number)
        # up to 30,000 radians, of which float32 has so much
        allowed = 1e-6 + 2.0**-22 * np.abs(ours)
        assert (np.abs(np.cos(ours) - cos[0, :, ::2].numpy()) < allowed).all()
        assert (np.abs(np.sin(ours) - sin[0, :, ::2].numpy()) < allowed).all()


def test_tiles_know_where_they_are(tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, NAME) / "config.json").read_text())
    found = open_sound_processor(tmp_path, data).prepare(sound(4.3))
    assert [tile[:, -1].tolist() for tile in found.tiles] == [
        [float(n)] * len(tile) for n, tile in enumerate(found.tiles)
    ]
    rows = open_ear(data, "float32", "config.json").rows
    assert found.text == f"<|sound_bos|>{'<sound>' * sum(rows(*tile.shape) for tile in found.tiles)}<|sound_eos|>"


def test_as_it_was_first_published(tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, NAME) / "config.json").read_text())
    data["audio_config"]["model_type"] = "musicflamingo_encoder"
    assert open_ear(data, "float32", "config.json").rows(201, 13) == 50
    assert text_settings(data, "config.json")["model_type"] == "qwen2"


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"rope_parameters": {"rope_type": "yarn"}}, UnsupportedModel, "rope_type='yarn'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.08}}, ModelError, "must leave an even part of 40"),
        ({"audio_frame_step": 0}, ModelError, "audio_frame_step"),
    ],
)
def test_refused(changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, NAME) / "config.json").read_text())
    with pytest.raises(error, match=says):
        open_ear(data | changes, "float32", "config.json")
