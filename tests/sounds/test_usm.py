"""Spectra as Gemma 3n and 4 hear them, against transformers' extractors; and what files may say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.sounds.prepared import SoundProcessor
from albireo.sounds.processor import open_sound_processor
from tiny_hearers import RATE, sound

transformers = pytest.importorskip("transformers")

_BANDS = 128
OF_EACH: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3n": ("Gemma3nAudioFeatureExtractor", {"audio_config": {"input_feat_size": _BANDS}}),
    "gemma4": ("Gemma4AudioFeatureExtractor", {"audio_config": {"subsampling_conv_channels": [_BANDS, 32]}}),
    "gemma4_unified": ("Gemma4UnifiedAudioFeatureExtractor", {"audio_config": {"audio_embed_dim": 640}}),
}
_NORMED = {"per_bin_mean": np.linspace(-1, 1, _BANDS).tolist(), "per_bin_stddev": np.linspace(1, 2, _BANDS).tolist()}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"preemphasis": 0.5, "preemphasis_htk_flavor": False, "fft_overdrive": True},
    {"preemphasis": 0.9, "min_frequency": 20.0, "max_frequency": 7000.0, "mel_floor": 1e-2, "input_scale_factor": 3.0},
    {"frame_length_ms": 25.0, "preemphasis": 0.0, **_NORMED},
)


def opened(folder: Path, kind: str, **changes: Any) -> SoundProcessor:
    name, config = OF_EACH[kind]
    getattr(transformers, name)(**changes).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **config}))
    # which transformers does not write, though it reads it
    path = folder / "preprocessor_config.json"
    said = {key: value for key, value in changes.items() if key == "frame_length_ms"}
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    return open_sound_processor(folder, {"model_type": kind, **config})


@pytest.mark.parametrize("changes", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("kind", ["gemma3n", "gemma4"])
def test_as_transformers(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    processor = opened(tmp_path, kind, **changes)
    theirs = getattr(transformers, OF_EACH[kind][0])(**changes)
    for seconds in (0.0411, 0.7713, 1.0, 30.0):
        given = theirs([sound(seconds)], sampling_rate=RATE, return_tensors="np")
        wanted = given["input_features"][0][given["input_features_mask"][0]]
        (tile,) = processor.prepare(sound(seconds)).tiles
        assert tile.dtype == np.float32 and tile.shape == wanted.shape
        np.testing.assert_allclose(tile, wanted, atol=1e-3)


def test_samples_as_they_are(tmp_path: Path) -> None:
    """A row for each 40 ms, the last with silence behind; of more than 30 s, several tiles."""
    processor, theirs = opened(tmp_path, "gemma4_unified"), transformers.Gemma4UnifiedAudioFeatureExtractor()
    for seconds, num_tiles in ((0.001, 1), (0.7713, 1), (30.0, 1), (31.0, 2)):
        found = processor.prepare(sound(seconds))
        wanted = theirs(sound(seconds), sampling_rate=RATE, return_tensors="np")["input_features"][0]
        assert len(found.tiles) == num_tiles and found.text == f"<|audio>{'<|audio|>' * len(wanted)}<audio|>"
        np.testing.assert_array_equal(np.concatenate(found.tiles), wanted)


@pytest.mark.parametrize("kind", ["gemma3n", "gemma4"])
def test_a_sound_that_is_too_short_or_too_long(kind: str, tmp_path: Path) -> None:
    processor = opened(tmp_path, kind)
    with pytest.raises(InvalidParams, match=r"takes 30.10 s, and this model hears up to 30 s"):
        processor.prepare(sound(30.1))
    least = {"gemma3n": 513, "gemma4": 161}[kind]
    assert processor.prepare(sound(least / RATE)).tiles[0].shape == (1, _BANDS)
    with pytest.raises(InvalidParams, match=rf"of fewer than {least} nothing is heard"):
        processor.prepare(sound((least - 1) / RATE))


def test_one_file_of_sounds_and_pictures(tmp_path: Path) -> None:
    """As Gemma 3n is published: what is said of pictures there is nothing of sounds."""
    processor = opened(tmp_path, "gemma3n")
    path = tmp_path / "preprocessor_config.json"
    pictures = {"image_processor_type": "SiglipImageProcessorFast", "image_seq_length": 256, "do_rescale": True}
    pictures |= {"data_format": "channels_first", "do_normalize": False, "size": {"height": 768, "width": 768}}
    path.write_text(json.dumps(json.loads(path.read_text()) | pictures))
    again = open_sound_processor(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    (tile,), (wanted,) = (each.prepare(sound(0.5)).tiles for each in (again, processor))
    np.testing.assert_array_equal(tile, wanted)


@pytest.mark.parametrize("said", [5, [], [128], "128"])
def test_channels_that_are_no_two_numbers(said: Any, tmp_path: Path) -> None:
    opened(tmp_path, "gemma4")
    config = {"model_type": "gemma4", "audio_config": {"subsampling_conv_channels": said}}
    with pytest.raises(ModelError, match=r"subsampling_conv_channels=.* must be"):
        open_sound_processor(tmp_path, config)


def test_texts_around(tmp_path: Path) -> None:
    """Of Gemma 4 a row is 40 ms; Gemma 3n has as many as 30 s have, whatever is heard."""
    assert opened(tmp_path, "gemma4").prepare(sound(1.0)).text == f"<|audio>{'<|audio|>' * 25}<audio|>"
    text = opened(tmp_path, "gemma3n").prepare(sound(1.0)).text
    assert text == f"\n\n<start_of_audio>{'<audio_soft_token>' * 188}<end_of_audio>\n\n"


@pytest.mark.parametrize(
    ("kind", "changes", "error", "says"),
    [
        ("gemma4", {"dither": 0.1}, UnsupportedModel, "dither"),
        ("gemma4", {"feature_extractor_type": "WhisperFeatureExtractor"}, UnsupportedModel, "supported: Gemma4Audio"),
        ("gemma4", {"feature_size": 80}, ModelError, "subsampling_conv_channels of config.json, 128"),
        ("gemma4", {"hop_length_ms": 20.0, "hop_length": 320}, ModelError, "hop_length_ms=20.0 must be 10"),
        ("gemma4", {"frame_length": 400}, ModelError, "frame_length=400 must be 320"),
        ("gemma4", {"min_frequency": 8000.0}, ModelError, "must be below max_frequency"),
        ("gemma4", {"per_bin_mean": [0.0]}, ModelError, "one of each of feature_size=128"),
        ("gemma3n", {"padding_value": 1.0}, UnsupportedModel, "padding_value"),
        ("gemma3n", {"feature_size": 80}, ModelError, "input_feat_size=128"),
        ("gemma3n", {"magic_pictures": 1}, UnsupportedModel, "magic_pictures"),
        ("gemma4_unified", {"feature_size": 480}, ModelError, "audio_embed_dim=640"),
        ("gemma4_unified", {"do_normalize": True}, UnsupportedModel, "do_normalize"),
    ],
)
def test_refused(kind: str, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    opened(tmp_path, kind)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(error, match=says):
        open_sound_processor(tmp_path, json.loads((tmp_path / "config.json").read_text()))
