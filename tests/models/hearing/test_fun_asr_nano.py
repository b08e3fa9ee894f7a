"""What Fun-ASR-Nano hears, and what its files may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.models.vision.tower import open_ear
from albireo.sounds.processor import open_sound_processor
from hearers_of_fun import FunExtractor
from tiny_hearers import save, sound

transformers = pytest.importorskip("transformers")
NAME = "fun_asr_nano"


def test_spectra_are_those_of_kaldi(tmp_path: Path) -> None:
    """Of sounds whose last row has frames that there are not; of one frame, and of less."""
    data = json.loads((save(tmp_path, NAME) / "config.json").read_text())
    processor = open_sound_processor(tmp_path, data)
    for seconds in (0.025, 0.0351, 0.07, 0.7713, 1.0):
        (tile,) = processor.prepare(sound(seconds)).tiles
        np.testing.assert_allclose(tile, FunExtractor()(sound(seconds)).numpy(), atol=1e-4)
    assert len(processor.prepare(sound(119.0)).tiles[0]) < processor.largest_tile()[0]
    for seconds, told in ((119.1, "takes 119.10 s, and this model hears up to 119 s"), (0.02, "of fewer than 400")):
        with pytest.raises(InvalidParams, match=told):
            processor.prepare(sound(seconds))


def test_the_token_is_what_the_processor_calls_it(tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, NAME) / "config.json").read_text())
    said = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"audio_token": "<a>", "feature_extractor": said}))
    assert open_sound_processor(tmp_path, data).placeholder == "<a>"


def test_all_that_transformers_writes() -> None:
    data = json.loads(transformers.FunAsrNanoConfig().to_json_string())
    assert open_ear(data, "bfloat16", "config.json").rows(2000, 560) == 2000


@pytest.mark.parametrize(
    ("part", "changes", "error", "says"),
    [
        ("audio_config", {"fsmn_kernel_size": 4}, UnsupportedModel, "fsmn_kernel_size=4 is not supported"),
        ("audio_config", {"hidden_size": 56, "num_attention_heads": 2}, UnsupportedModel, "hidden_size=56"),
        ("audio_config", {"max_position_embeddings": 500}, UnsupportedModel, "wanted 2001"),
        ("audio_config", {"hidden_act": "mish"}, UnsupportedModel, "hidden_act='mish'"),
        ("adaptor_config", {"hidden_size": 24}, ModelError, "must be hidden_size=48 of the text part"),
        ("adaptor_config", {"use_fsmn": True}, UnsupportedModel, "use_fsmn"),
        (None, {"adaptor_config": None}, ModelError, "adaptor_config is missing"),
    ],
)
def test_refused(part: str | None, changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, NAME) / "config.json").read_text())
    data = data | (changes if part is None else {part: data[part] | changes})
    with pytest.raises(error, match=says):
        open_ear(data, "float32", "config.json")


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"window": "povey"}, UnsupportedModel, "window='povey'"),
        ({"feature_size": 80}, ModelError, "feature_size=80 must be num_mel_bins"),
        ({"num_frames_lfr": 5}, ModelError, "num_frames_lfr=5 must be num_stacked_frames"),
        ({"stride_lfr": 5}, UnsupportedModel, "stride_lfr=5"),
        ({"frame_shift": 1}, ModelError, "frame_shift=1 makes 1,000 frames a second of"),
        (
            {"frame_length": 1000, "frame_shift": 1000},
            ModelError,
            "frame_length=1000 makes 16,000 samples; at most 4,096",
        ),
        ({"dither": 1.0}, UnsupportedModel, "dither"),
    ],
)
def test_extractors_that_are_refused(
    changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    path = save(tmp_path, NAME) / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(error, match=says):
        open_sound_processor(tmp_path, json.loads((tmp_path / "config.json").read_text()))
