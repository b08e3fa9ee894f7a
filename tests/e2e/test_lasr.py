"""From a sound to its text, frame by frame: a tiny LASR as transformers saves it."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LasrCTCConfig, LasrFeatureExtractor, LasrForCTC

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.frame_marks import FrameMarks
from albireo.sounds.lasr import open_lasr_mel
from made_once import made_once
from tiny_parakeet import PIECES, RATE, lively, piece_tokenizer, tones

SETTINGS = {"kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 4, "num_threads": 1, "use_tqdm_on_load": False}
LENGTHS = (0.9, 1.34567)
ALL = SamplingParams(temperature=0.0, max_tokens=None, logprobs=0)
MARKS = FrameMarks(len(PIECES), 997)


@made_once
def save(folder: Path) -> Path:
    torch.manual_seed(9)
    encoder = {
        "hidden_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "subsampling_conv_channels": 24,
        "num_mel_bins": 16,
        "conv_kernel_size": 8,
    }
    model = LasrForCTC(LasrCTCConfig(vocab_size=len(PIECES), pad_token_id=54, encoder_config=encoder))
    lively(model, {"ctc_head.bias": 4.0})
    model.save_pretrained(folder)
    LasrFeatureExtractor(feature_size=16).save_pretrained(folder)
    piece_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("lasr"))


def heard(seconds: float, number: int) -> dict[str, torch.Tensor]:
    given = LasrFeatureExtractor(feature_size=16)(tones(seconds, number), sampling_rate=RATE, return_tensors="pt")
    return {"input_features": given["input_features"].float()}


def asked(number: int) -> dict[str, Any]:
    return {"prompt_token_ids": [0], "multi_modal_data": {"audio": (tones(LENGTHS[number], number), RATE)}}


def test_spectra_are_those_of_transformers(folder: Path) -> None:
    mel = open_lasr_mel(folder, 16, 40, 13)
    for number, seconds in enumerate(LENGTHS):
        wanted = heard(seconds, number)["input_features"][0].numpy()
        found = mel.features(tones(seconds, number))
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=2e-4)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # by torch
def test_tokens_frames_and_logprobs_as_transformers(folder: Path, tmp_path: Path) -> None:
    """And from an engine directory the same; a sound of a few milliseconds is heard, too."""
    model = LasrForCTC.from_pretrained(folder).eval()
    with LLM(str(folder), dtype="float32", **SETTINGS) as llm:
        outputs = llm.generate([asked(number) for number in range(len(LENGTHS))], ALL, use_tqdm=False)
        (found,) = llm.transcribe((tones(LENGTHS[1], 1), RATE), TranscriptionParams(words=True), use_tqdm=False)
        assert llm.transcribe((tones(0.05), RATE), use_tqdm=False)[0].duration == pytest.approx(0.05)
    for number, output in enumerate(outputs):
        with torch.no_grad():
            best = torch.log_softmax(model(**heard(LENGTHS[number], number)).logits[0], -1).max(-1)
        frames = [*zip(range(len(best.indices)), best.indices.tolist(), best.values.tolist(), strict=True)]
        runs = [[*each] for _, each in groupby(frames, key=lambda one: one[1])]
        wanted = [(run[0][1], run[0][0], max(value for *_, value in run)) for run in runs if run[0][1] != 54]
        places = output.outputs[0].logprobs or []
        told = [
            (token, frame, places[place][token].logprob)
            for token, place, frame in MARKS.spans(output.outputs[0].token_ids)
        ]
        assert len(told) > 5 and [each[:2] for each in told] == [each[:2] for each in wanted]
        assert [each[2] for each in told] == pytest.approx([each[2] for each in wanted], abs=5e-4)
    assert found.text == outputs[1].outputs[0].text and [each.word for each in found.words] == found.text.split()
    said = [frame for token, _, frame in MARKS.spans(outputs[1].outputs[0].token_ids) if token > 1]
    assert found.words[0].start == pytest.approx(0.04 * said[0])
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    with LLM(str(tmp_path / "engine"), dtype="float32", **SETTINGS) as own:
        assert own.generate([asked(1)], ALL, use_tqdm=False)[0].outputs[0] == outputs[1].outputs[0]


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("config.json", {"encoder_config": {"subsampling_conv_stride": 3}}, "subsampling_conv_stride=3"),
        ("config.json", {"encoder_config": {"attention_bias": True}}, "attention_bias"),
        ("config.json", {"encoder_config": {"conv_residual_weights": [1.0]}}, "conv_residual_weights"),
        ("preprocessor_config.json", {"feature_size": 80}, "feature_size=80 must be num_mel_bins=16"),
        ("preprocessor_config.json", {"win_length": 320}, "win_length=320 must be more than two of hop_length=160"),
    ],
)
def test_refused(file: str, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = save(tmp_path) / file
    data = json.loads(path.read_text())
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(data))
    with pytest.raises(Exception, match=told):
        LLM(str(tmp_path), **SETTINGS)
