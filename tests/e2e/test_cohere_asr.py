"""From a sound to its text: a tiny Cohere Transcribe as transformers saves it, by NeMo's names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.execution.vision import VisionRunner, num_blocks, vision_programs
from albireo.models.hearing.cohere_asr import open_cohere_asr
from albireo.models.vision.tensors import tower_tensors
from albireo.sounds.nemo import open_nemo_mel
from e2e.media_answers import check_tokens
from tiny_cohere import RATE, SPECIALS, heard, opened, save, theirs
from tiny_speech import sound

SETTINGS = {"kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 4, "num_threads": 1, "use_tqdm_on_load": False}
#: Of sounds, in seconds: of one that ends in the middle of everything, and of a very short one.
LENGTHS = (0.9, 2.34567, 0.05, 0.31)
FORCED = SamplingParams(temperature=0.0, max_tokens=12, min_tokens=12, logprobs=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("cohere"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", **SETTINGS) as found:
        yield found


def asked(number: int, prompt: tuple[int, ...] = (4,)) -> dict[str, Any]:
    given = sound(LENGTHS[number % len(LENGTHS)], number)
    return {"prompt_token_ids": list(prompt), "multi_modal_data": {"audio": (given, RATE)}}


def test_spectra_are_those_of_transformers(folder: Path) -> None:
    mel = open_nemo_mel(folder, 16, 35)
    for seconds in LENGTHS:
        given = heard(sound(seconds))
        count = int(given["attention_mask"].sum())
        ours = mel.features(sound(seconds))
        assert ours.shape == (count, 16)
        np.testing.assert_allclose(ours, given["input_features"][0, :count].numpy(), atol=2e-4)


def test_rows_are_those_of_transformers(folder: Path) -> None:
    tower = open_cohere_asr(json.loads((folder / "config.json").read_text()), "float32", "config.json")
    tensors, pool = tower_tensors(folder), thread_pool(1)
    programs = vision_programs(tower, CpuCatalog(isa_levels()), tower.patches(*tower.largest))
    runner = VisionRunner(tower, tensors, programs, lambda p, weights: CpuModel(p, weights, pool, num_blocks(p)))
    tensors.close()
    for seconds in LENGTHS:
        given = heard(sound(seconds))
        count = int(given["attention_mask"].sum())
        found = {}
        for kind in ("float64", "float32"):
            model = opened(folder, kind).model
            features = given["input_features"].to(getattr(torch, kind))
            with torch.no_grad():
                rows = model.encoder(features, given["attention_mask"]).last_hidden_state
                found[kind] = model.decoder.proj(rows)[0].numpy()
        ours = runner.rows(given["input_features"][0, :count].numpy())
        exact, rough = (found[kind][: len(ours)] for kind in ("float64", "float32"))
        assert len(ours) == -(-count // 8) == tower.rows(count, 16)
        noise = np.linalg.norm(rough - exact)
        assert noise < 4e-6 * np.linalg.norm(exact), "too rough to prove anything"
        assert np.linalg.norm(ours - exact) < 4 * noise


def test_tokens_and_logprobs_as_transformers(folder: Path, llm: LLM) -> None:
    given = [asked(number, ((4,), (4, 77, 80, 99))[number % 2]) for number in range(len(LENGTHS))]
    outputs = llm.generate(given, FORCED, use_tqdm=False)
    for each, output in zip(given, outputs, strict=True):
        tokens, values = theirs(folder, each["multi_modal_data"]["audio"][0], each["prompt_token_ids"], 12)
        check_tokens(output, tokens, values)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == len(LENGTHS), "all sounds are alike"


def test_what_is_said_is_written_down(folder: Path, llm: LLM, tmp_path: Path) -> None:
    """In the language that is asked for; from an engine directory, too."""
    few = SamplingParams(temperature=0.0, max_tokens=8)
    for language in (None, "de"):
        spoken = f"<|{language or 'en'}|>"
        names = ("▁", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", spoken, spoken, "<|pnc|>",
                 "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>")  # fmt: skip
        prompt = tuple(SPECIALS.index(name) for name in names)
        (wanted,) = llm.generate(asked(1, prompt), few, use_tqdm=False)
        (found,) = llm.transcribe(
            (sound(LENGTHS[1], 1), RATE), TranscriptionParams(language=language), few, use_tqdm=False
        )
        assert found.text == wanted.outputs[0].text.strip() and found.language == (language or "")
    for bad, told in (
        (TranscriptionParams(task="translate"), "as it is said"),
        (TranscriptionParams(prompt="x"), "is told nothing beside"),
        (TranscriptionParams(language="eo"), "language=eo is none"),
    ):
        with pytest.raises((InvalidParams, UnsupportedFeature), match=told):
            llm.transcribe((sound(0.9), RATE), bad)
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    with LLM(str(tmp_path / "engine"), dtype="float32", **SETTINGS) as own:
        assert own.generate(asked(1, prompt), few, use_tqdm=False)[0].outputs[0].text == wanted.outputs[0].text


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("config.json", {"encoder_config": {"subsampling_factor": 4}}, "subsampling_factor=4"),
        ("config.json", {"encoder_config": {"model_type": "whisper"}}, "model_type='whisper'"),
        ("config.json", {"num_key_value_heads": 2}, "num_key_value_heads=2"),
        ("preprocessor_config.json", {"feature_size": 80}, "feature_size=80 must be num_mel_bins=16"),
        ("preprocessor_config.json", {"max_audio_clip_s": 60.0}, "max_audio_clip_s=60"),
    ],
)
def test_refused(file: str, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = save(tmp_path)
    data = json.loads((path / file).read_text())
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    (path / file).write_text(json.dumps(data))
    with pytest.raises(Exception, match=told):
        LLM(str(path), **SETTINGS)
