"""From samples to a text, frame by frame: tiny wav2vec 2.0, HuBERT, UniSpeech, data2vec, WavLM, W2v-BERT 2.0 and
Omnilingual ASR as transformers saves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.frame_marks import FrameMarks
from albireo.sounds.bert_mel import open_bert_mel
from tiny_parakeet import PIECES, RATE, tones
from tiny_wav2vec2 import CHARACTERS, KINDS, save, theirs, tokenizer

SETTINGS = {"kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 4, "num_threads": 1, "use_tqdm_on_load": False}
#: Of sounds, in seconds: of pieces and a rest, of one piece, and of a very short one.
LENGTHS = (2.34567, 0.9, 0.03)
ALL = SamplingParams(temperature=0.0, max_tokens=None, logprobs=0)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    return save(tmp_path_factory.mktemp(kind), kind)


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", **SETTINGS) as found:
        yield found


def asked(number: int) -> dict[str, Any]:
    return {"prompt_token_ids": [0], "multi_modal_data": {"audio": (tones(LENGTHS[number], number), RATE)}}


def test_tokens_frames_and_logprobs_as_transformers(folder: Path, kind: str, llm: LLM) -> None:
    blank, count = (54, len(PIECES)) if kind == "omni" else (0, len(CHARACTERS))
    marks = FrameMarks(count, 1499)
    outputs = llm.generate([asked(number) for number in range(len(LENGTHS))], ALL, use_tqdm=False)
    for number, output in enumerate(outputs):
        best = torch.log_softmax(theirs(folder, kind, tones(LENGTHS[number], number)), -1).max(-1)
        frames = [*zip(range(len(best.indices)), best.indices.tolist(), best.values.tolist(), strict=True)]
        runs = [[*each] for _, each in groupby(frames, key=lambda one: one[1])]
        wanted = [(run[0][1], run[0][0], max(value for *_, value in run)) for run in runs if run[0][1] != blank]
        found = output.outputs[0]
        told = [
            (token, frame, (found.logprobs or [])[place][token].logprob)
            for token, place, frame in marks.spans(found.token_ids)
        ]
        assert [each[:2] for each in told] == [each[:2] for each in wanted]
        assert [each[2] for each in told] == pytest.approx([each[2] for each in wanted], abs=5e-4)
    said = [token for token, *_ in marks.spans(outputs[0].outputs[0].token_ids)]
    assert len(said) > 14 and len(set(said)) > 2, "little is said"


def test_what_is_said_is_written_down(folder: Path, kind: str, llm: LLM) -> None:
    """As transformers' tokenizer has it, with the times of its words."""
    sound = tones(LENGTHS[0], 0)
    (found,) = llm.transcribe((sound, RATE), TranscriptionParams(words=True), use_tqdm=False)
    assert [each.word for each in found.words] == found.text.split() and found.text
    if kind == "omni":
        return
    ids = theirs(folder, kind, sound).argmax(-1)
    told = tokenizer(folder, kind).decode(ids, output_word_offsets=True)
    assert found.text == told.text and found.text != (found.text.upper() if kind == "large" else found.text.lower())
    for word, wanted in zip(found.words, told.word_offsets, strict=True):
        assert (word.start, word.end) == (
            pytest.approx(0.02 * wanted["start_offset"]),
            pytest.approx(0.02 * wanted["end_offset"]),
        )


def test_windows_are_no_longer_than_there_is_room_for(folder: Path) -> None:
    sound = tones(LENGTHS[0], 0)
    with LLM(str(folder), dtype="float32", max_model_len=122, **SETTINGS) as llm:
        (found,) = llm.transcribe((sound, RATE), TranscriptionParams(words=True), use_tqdm=False)
    assert found.duration == pytest.approx(LENGTHS[0], abs=1e-4)
    # 60 frames a window: of the third, too, something is said
    assert found.words[-1].end > 2.0 and [each.word for each in found.words] == found.text.split()


def test_an_engine_directory_writes_the_same(folder: Path, llm: LLM, tmp_path: Path) -> None:
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    (wanted,) = llm.generate([asked(0)], ALL, use_tqdm=False)
    with LLM(str(tmp_path / "engine"), dtype="float32", **SETTINGS) as own:
        assert own.generate([asked(0)], ALL, use_tqdm=False)[0].outputs[0] == wanted.outputs[0]


def test_old_files(tmp_path: Path) -> None:
    """Lengths and directions of a weight by torch's older names."""
    from safetensors.numpy import load_file, save_file

    folder = save(tmp_path, "base")
    names = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    tensors = load_file(folder / "model.safetensors")
    with LLM(str(folder), dtype="float32", **SETTINGS) as llm:
        (wanted,) = llm.generate([asked(1)], ALL, use_tqdm=False)
    for old, new in names.items():
        tensors = {name.replace(old, new): value for name, value in tensors.items()}
    assert any(name.endswith("weight_g") for name in tensors)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")
    with LLM(str(folder), dtype="float32", **SETTINGS) as llm:
        assert llm.generate([asked(1)], ALL, use_tqdm=False)[0].outputs[0] == wanted.outputs[0]


def test_as_its_processor_is_saved_now(tmp_path: Path) -> None:
    """What is heard, and how it is spelt, in files of other names; in an engine directory, too."""
    from transformers import Wav2Vec2Processor

    folder = save(tmp_path / "model", "base")
    with LLM(str(folder), dtype="float32", **SETTINGS) as llm:
        (wanted,) = llm.generate([asked(1)], ALL, use_tqdm=False)
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).unlink()
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer(folder, "base")).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists() and (folder / "processor_config.json").exists()
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    for path in (folder, tmp_path / "engine"):
        with LLM(str(path), dtype="float32", **SETTINGS) as llm:
            assert llm.generate([asked(1)], ALL, use_tqdm=False)[0].outputs[0] == wanted.outputs[0]


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("config.json", {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "conv_stride"),
        ("config.json", {"add_adapter": True}, "add_adapter"),
        ("config.json", {"adapter_attn_dim": 16}, "adapter_attn_dim=16"),
        ("config.json", {"feat_extract_norm": "batch"}, "feat_extract_norm"),
        ("config.json", {"num_conv_pos_embedding_groups": 5}, "num_conv_pos_embedding_groups=5"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate=8000"),
        ("tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer"}, "WhisperTokenizer"),
        ("vocab.json", {"eng": {"a": 1}}, "a vocabulary a language"),
    ],
)
def test_refused(file: str, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    _refused(save(tmp_path, "base") / file, changes, told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"add_adapter": True}, "add_adapter"),
        ({"num_conv_pos_embeddings": 4}, "layers.3.conv.weight"),
        ({"conv_pos_kernel_size": 9}, "layers.0.conv.weight has shape .*; wanted 2,304 numbers"),
        ({"num_conv_pos_embedding_groups": 5}, "a part of hidden_size=32$"),
    ],
)
def test_refused_of_data2vec(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    _refused(save(tmp_path, "data2vec") / "config.json", changes, told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_buckets": 22}, "num_buckets=22 must be fours"),
        ({"max_bucket_distance": 6}, "max_bucket_distance=6 more than a quarter"),
        ({"num_buckets": 28}, r"rel_attn_embed.weight has shape \(24, 4\); wanted 28, 4"),
    ],
)
def test_refused_of_wavlm(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    _refused(save(tmp_path, "wavlm") / "config.json", changes, told)


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("config.json", {"add_adapter": True}, "add_adapter"),
        ("config.json", {"position_embeddings_type": "rotary"}, "position_embeddings_type='rotary'"),
        ("config.json", {"right_max_position_embeddings": 4}, "wanted vectors of 6 distances before and 4 behind"),
        ("config.json", {"conv_depthwise_kernel_size": 33}, "conv_depthwise_kernel_size=33"),
        ("preprocessor_config.json", {"num_mel_bins": 80, "feature_size": 80}, "feature_projection_input_dim=32"),
        ("preprocessor_config.json", {"stride": 1}, "'stride': 1"),
    ],
)
def test_refused_of_w2v_bert(file: str, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    _refused(save(tmp_path, "bert") / file, changes, told)


def test_rows_of_bands_are_those_of_transformers(tmp_path: Path) -> None:
    """Of an odd number of frames, too."""
    mel, extractor = (
        open_bert_mel(save(tmp_path, "bert"), 32, 30),
        SeamlessM4TFeatureExtractor.from_pretrained(tmp_path),
    )
    for samples in (tones(0.9, 1), tones(0.61, 2), tones(0.605, 3)):
        given = extractor(samples, sampling_rate=RATE, return_tensors="np")
        wanted = given["input_features"][0, : given["attention_mask"].sum()]
        found = mel.features(samples)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=2e-4)


def _refused(path: Path, changes: dict[str, Any], told: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(Exception, match=told):
        LLM(str(path.parent), **SETTINGS)
