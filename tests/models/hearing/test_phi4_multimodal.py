"""What Phi-4 multimodal hears: spectra of its extractor, pieces of a sound, and what files may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, SamplingParams
from albireo.errors import (
    InvalidParams,
    ModelError,
    TemplateError,
    UnsupportedFeature,
    UnsupportedModel,
    WeightMismatch,
)
from albireo.models.vision.tower import hears, open_ear, sees
from albireo.sounds.processor import open_sound_processor
from tiny_hearers import RATE, opened, save, sound, tiles

transformers = pytest.importorskip("transformers")
NAME = "phi4_multimodal"


@pytest.mark.parametrize("changes", [{}, {"preemphasis": 0.5, "mel_min_frequency": 100.0, "mel_max_frequency": 7000.0}])
def test_spectra_are_those_of_its_extractor(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = transformers.Phi4MultimodalFeatureExtractor(**changes)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    # which transformers does not write, though it reads them
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    processor = open_sound_processor(tmp_path, {"model_type": NAME, "audio_config": {"input_size": 80}})
    for seconds in (0.025, 0.7713, 1.0):
        (tile,) = processor.prepare(sound(seconds)).tiles
        wanted = theirs(sound(seconds), sampling_rate=RATE, return_tensors="np")
        np.testing.assert_allclose(tile, wanted["audio_input_features"][0], atol=1e-4)
        assert processor.rows(*tile.shape) == int(wanted["audio_embed_sizes"][0])


def test_the_token_is_what_the_tokenizer_calls_it(tmp_path: Path) -> None:
    transformers.Phi4MultimodalFeatureExtractor().save_pretrained(tmp_path)
    config = {"model_type": NAME, "audio_config": {"input_size": 80}}
    for said, token in (
        ({"audio_token": "<|endoftext11|>"}, "<|endoftext11|>"),
        ({"extra_special_tokens": {"audio_token": "<a>"}}, "<a>"),
        ({"audio_token": {"content": "<b>"}}, "<b>"),
        ({}, "<|audio|>"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
        assert open_sound_processor(tmp_path, config).placeholder == token


def test_pieces_are_no_part_of_what_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tile,) = tiles(save(tmp_path, NAME), sound(1.0))
    found = []
    for rows in (32, 5, 4, 1):
        monkeypatch.setattr("albireo.models.hearing.eighths._PIECE", rows)
        found.append(opened(tmp_path).rows(tile))
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], atol=2e-5)


def test_all_that_transformers_writes() -> None:
    """Of its published sizes; 40 s, which is as long as its positions go."""
    data = json.loads(transformers.Phi4MultimodalConfig().to_json_string())
    assert hears(data) and sees(data)
    assert open_ear(data, "bfloat16", "config.json").rows(3998, 80) == 500


def test_what_is_too_short_or_too_long_and_what_is_seen(tmp_path: Path) -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    with LLM(str(save(tmp_path, NAME)), dtype="float32", num_threads=1) as llm:
        for seconds, told in ((40.1, "takes 40.10 s, and this model hears up to 40 s"), (0.02, "of fewer than 400")):
            with pytest.raises(InvalidParams, match=told):
                llm.generate({"prompt": "<|audio|>", "multi_modal_data": {"audio": (sound(seconds), RATE)}}, greedy)
        with pytest.raises(TemplateError, match="image_size=28 is not supported; blocks have 32 patches"):
            llm.chat([{"role": "user", "content": [{"type": "image", "image": b""}]}], greedy)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"chunk_size": 18}, UnsupportedModel, "chunk_size"),
        ({"bias_symmetric": True}, UnsupportedModel, "bias_symmetric"),
        ({"time_reduction": 4}, UnsupportedModel, "time_reduction=4 is not supported; supported: 8"),
        ({"ext_pw_out_channel": 16}, UnsupportedModel, "ext_pw_out_channel=16"),
        ({"conv_activation": "mish"}, UnsupportedModel, "conv_activation='mish'"),
        ({"kernel_size": 99}, ModelError, "kernel_size"),
    ],
)
def test_refused(changes: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    data = json.loads((save(tmp_path, NAME) / "config.json").read_text())
    data["audio_config"] |= changes
    with pytest.raises(error, match=says):
        open_ear(data, "float32", "config.json")


def test_numbers_of_another_model(tmp_path: Path) -> None:
    path = save(tmp_path, NAME) / "config.json"
    data = json.loads(path.read_text())
    data["audio_config"]["bias_max_distance"] = 9
    path.write_text(json.dumps(data))
    with pytest.raises(WeightMismatch, match=r"distances. is made of .* it is \(15, 2\); wanted \(19, 2\)"):
        opened(tmp_path)


def test_a_tokenizer_without_a_token_for_sounds_leaves_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path, NAME) / "tokenizer.json"
    path.write_text(path.read_text().replace('"<|audio|>"', '"<|other|>"'))
    told = "the tokenizer has no token '<\\|audio\\|>', which stands for sounds in this model"
    with LLM(str(tmp_path), dtype="float32", num_threads=1) as llm:
        assert caplog.text.count("sounds are not read: the tokenizer has no token") == 1
        with pytest.raises(TemplateError, match=told):
            llm.chat([{"role": "user", "content": [{"type": "audio", "audio": (sound(0.5), RATE)}]}])
        with pytest.raises(UnsupportedFeature, match="hears none"):
            llm.transcribe((sound(0.5), RATE))
        given = {"prompt": "<|audio|>", "multi_modal_data": {"audio": (sound(0.5), RATE)}}
        with pytest.raises(UnsupportedFeature, match=told):
            llm.generate(given, SamplingParams(max_tokens=1))
        assert llm.generate("Hello", SamplingParams(max_tokens=1, ignore_eos=True), use_tqdm=False)[0].outputs
