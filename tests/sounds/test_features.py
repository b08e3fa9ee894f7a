"""Spectra, against transformers' extractor; and what a directory may say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from albireo.errors import InvariantError, ModelError, UnsupportedModel
from albireo.sounds.features import open_log_mel

RATE = 16000
_RNG = np.random.default_rng(0)
_TIMES = np.arange(12 * RATE) / RATE
SOUNDS = {
    "noise": (_RNG.standard_normal(30 * RATE) * 0.1).astype(np.float32),
    "tone": (0.5 * np.sin(2 * np.pi * 440 * _TIMES)).astype(np.float32),
    "sweep": (0.3 * np.sin(2 * np.pi * (100 + 300 * _TIMES) * _TIMES)).astype(np.float32),
    "silence": np.zeros(5000, np.float32),
    "sample": np.ones(1, np.float32),
    "nothing": np.zeros(0, np.float32),
}


@pytest.mark.parametrize("size", [80, 128])
@pytest.mark.parametrize("name", SOUNDS)
def test_as_transformers(name: str, size: int, tmp_path: Path) -> None:
    extractor = WhisperFeatureExtractor(feature_size=size)
    extractor.save_pretrained(tmp_path)
    ours = open_log_mel(tmp_path).features(SOUNDS[name])
    whole = np.zeros(30 * RATE, np.float32)
    whole[: len(SOUNDS[name])] = SOUNDS[name]
    exact = extractor._np_extract_fbank_features(whole[None], "cpu")[0].T
    assert ours.shape == (3000, size) and ours.dtype == np.float32 and ours.flags.c_contiguous
    assert np.abs(ours - exact).max() < 1e-6
    # in float32, as it is used
    theirs = extractor(whole, sampling_rate=RATE, return_tensors="np")["input_features"][0].T
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize(
    "keys", [{"hop_length": 80}, {"n_fft": 512}, {"sampling_rate": 32000, "n_fft": 800}, {"chunk_length": 2}]
)
def test_other_numbers(keys: dict[str, int], tmp_path: Path) -> None:
    extractor = WhisperFeatureExtractor(**{"chunk_length": 3, **keys})
    extractor.save_pretrained(tmp_path)
    found = open_log_mel(tmp_path)
    samples = SOUNDS["noise"][: found.num_samples]
    exact = extractor._np_extract_fbank_features(samples[None], "cpu")[0].T
    assert found.num_frames == len(exact)
    assert np.abs(found.features(samples) - exact).max() < 1e-6


def test_within_the_file_of_a_processor(tmp_path: Path) -> None:
    table = json.loads(WhisperFeatureExtractor(feature_size=128).to_json_string())
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": table}))
    assert open_log_mel(tmp_path).num_mels == 128


@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        ({"dither": 0.1}, UnsupportedModel, "dither"),
        ({"do_normalize": True}, UnsupportedModel, "do_normalize"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, UnsupportedModel, "feature_extractor_type"),
        ({"padding_value": 1.0}, UnsupportedModel, "padding_value"),
        ({"hop_length": 0}, ModelError, "hop_length"),
        ({"hop_length": 7001}, ModelError, "hop_length"),
        ({"n_fft": 401}, ModelError, "n_fft"),
        ({"feature_size": "80"}, ModelError, "feature_size"),
    ],
)
def test_refused(keys: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    table = json.loads(WhisperFeatureExtractor().to_json_string())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**table, **keys}))
    with pytest.raises(error, match=says):
        open_log_mel(tmp_path)


def test_a_directory_that_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        open_log_mel(tmp_path)


def test_too_many_samples(tmp_path: Path) -> None:
    WhisperFeatureExtractor(chunk_length=1).save_pretrained(tmp_path)
    with pytest.raises(InvariantError, match="16000"):
        open_log_mel(tmp_path).features(np.zeros(16001, np.float32))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"hop_length": 1}, "hop_length=1 makes 16,000 frames a second of 80 bands; 65,536 numbers a second"),
        ({"n_fft": 4096}, "makes 100 frames a second of 4,096 samples; 262,144 numbers a second are allowed"),
        ({"n_fft": 2**14}, "n_fft=16384 must be .* to 4096"),
        ({"feature_size": 2**12}, "feature_size=4096 must be .* to 512"),
        ({"sampling_rate": 2**20}, "sampling_rate=1048576 must be .* to 65536"),
        ({"chunk_length": 2**12}, "chunk_length=4096 must be .* to 512"),
        ({"chunk_length": 500, "sampling_rate": 48000}, "chunk_length=500 of .*=48000 is more than 8,388,608 samples"),
    ],
)
def test_files_that_would_take_gigabytes_are_refused(keys: dict[str, int], problem: str, tmp_path: Path) -> None:
    """Each value, or their product: bands of 4,096 beside 16,384 samples took 1.3 GB before anything was heard."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(keys))
    with pytest.raises(ModelError, match=problem):
        open_log_mel(tmp_path)
