"""Whisper: its encoder against transformers', what its files may say, and names of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.errors import InvariantError, ModelError, UnsupportedModel, WeightMismatch
from albireo.execution.vision import VisionRunner, num_blocks, vision_programs
from albireo.models import load_architecture, load_config, open_checkpoint, speech_types
from albireo.models.hearing.whisper import open_whisper
from albireo.models.speech import whisper
from albireo.models.vision.tensors import tower_tensors
from albireo.models.vision.tower import check_tensors, has_tower, listens, open_tower
from tiny_speech import POSITIONS, VOCAB, features, opened, save, sound


def _rows(folder: Path, dtype: str, spectrum: np.ndarray) -> np.ndarray:
    tower = open_whisper(json.loads((folder / "config.json").read_text()), dtype, "config.json")
    tensors = tower_tensors(folder)
    check_tensors(tower, tensors)
    programs = vision_programs(tower, CpuCatalog(tuple(isa_levels())), tower.patches(*tower.largest))
    runner = VisionRunner(
        tower, tensors, programs, lambda program, own: CpuModel(program, own, thread_pool(2), num_blocks(program))
    )
    return runner.rows(spectrum)


def _farthest(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(found - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_encoder_is_as_near_to_exact_as_transformers(dtype: str, tmp_path: Path) -> None:
    folder = save(tmp_path, dtype=dtype)
    spectrum = features(folder, sound(0.8))
    with torch.no_grad():
        exact, theirs = (
            opened(folder, kind).model.encoder(spectrum.to(getattr(torch, kind))).last_hidden_state[0].double().numpy()
            for kind in ("float64", dtype)
        )
    ours = _rows(folder, dtype, np.ascontiguousarray(spectrum[0].numpy().T))
    assert ours.shape == exact.shape == (POSITIONS, 48)
    noise = _farthest(theirs, exact)
    assert _farthest(ours, exact) < noise * (4 if dtype == "float32" else 1.0)
    assert noise < {"bfloat16": 0.05, "float32": 4e-6}[dtype], "too rough to prove anything"


def test_found_among_models_of_speech(tmp_path: Path) -> None:
    folder = save(tmp_path)
    data = json.loads((folder / "config.json").read_text())
    frames = ("nemotron3_5_asr", "nemotron_asr_streaming", "omniasr_ctc", "parakeet_ctc", "parakeet_rnnt")
    listening = ("canary", "cohere_asr", "data2vec_audio", "hubert", "lasr_ctc", "moonshine")
    samples = ("unispeech", "unispeech_sat", "wav2vec2", "wav2vec2_bert", "wavlm")
    assert speech_types() == (*listening, *frames, "parakeet_tdt", *samples, "whisper")
    assert listens(data) and has_tower(data)
    assert load_architecture("whisper").tiny["model_type"] == "whisper"
    config = load_config(folder)
    assert config.blocks.sound_positions == POSITIONS and config.max_position_embeddings == POSITIONS + 64
    assert config.vocab_size == VOCAB and config.tie_word_embeddings
    with open_checkpoint(folder, whisper.build(config, 100)) as checkpoint:
        assert not any("encoder." in name for name in checkpoint.names)


#: What whisper-large-v3-turbo's config.json has beside sizes, and older ones have.
PUBLISHED = {
    "_name_or_path": "openai/whisper-large-v3",
    "num_hidden_layers": 32,
    "forced_decoder_ids": [[1, 50259]],
    "begin_suppress_tokens": [220, 50256],
    "suppress_tokens": [1, 2],
    "max_length": 448,
    "torch_dtype": "float16",
    "use_weighted_layer_sum": False,
    "median_filter_width": 7,
}


def _changed(folder: Path, **changes: Any) -> dict[str, Any]:
    data = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(data))
    return data


def test_published_keys(tmp_path: Path) -> None:
    folder = save(tmp_path)
    data = _changed(folder, dtype=None, **PUBLISHED)
    assert load_config(folder).dtype == "float16"
    assert load_config(folder).num_layers == 2
    assert open_tower(data, "float16", "config.json").rows(100, 8) == POSITIONS


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"scale_embedding": True}, UnsupportedModel, "scale_embedding"),
        ({"activation_function": "quick_gelu"}, UnsupportedModel, "activation_function"),
        ({"architectures": ["WhisperForAudioClassification"]}, UnsupportedModel, "WhisperForAudioClassification"),
        ({"max_source_positions": 0}, ModelError, "max_source_positions"),
        ({"is_encoder_decoder": False}, UnsupportedModel, "is_encoder_decoder"),
        ({"d_model": 46}, ModelError, "d_model|hidden_size"),
        ({"use_weighted_layer_sum": True}, UnsupportedModel, "use_weighted_layer_sum"),
    ],
)
def test_refused(changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    _changed(save(tmp_path), **changes)
    with pytest.raises(error, match=says):
        load_config(tmp_path)


def test_a_spectrum_of_another_size(tmp_path: Path) -> None:
    tower = open_tower(json.loads((save(tmp_path) / "config.json").read_text()), "float32", "config.json")
    for size in ((99, 8), (100, 80), (50, 8)):
        with pytest.raises(InvariantError, match="hears 100 of 8"):
            tower.rows(*size)


def test_tensors_of_another_shape(tmp_path: Path) -> None:
    data = _changed(save(tmp_path), encoder_ffn_dim=81)
    tensors = tower_tensors(tmp_path)
    with pytest.raises(WeightMismatch, match="fc1"):
        check_tensors(open_tower(data, "float32", "config.json"), tensors)
