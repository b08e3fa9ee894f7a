"""From a sound to its text, frame by frame: tiny Parakeets as transformers saves them: CTC, RNN-T and TDT."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ParakeetProcessor

from albireo import LLM, BuildConfig, SamplingParams, TranscriptionParams, build
from albireo.errors import ConfigError, InvalidParams, UnsupportedFeature
from albireo.frame_marks import FrameMarks
from albireo.sounds.nemo import PARAKEET, open_nemo_mel
from albireo.sounds.nemo import STREAMING as OF_STREAMS
from tiny_parakeet import BLANK, RATE, STREAMING, VOCAB, extractor, heard, opened, save, theirs, tones

SETTINGS = {"kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 4, "num_threads": 1, "use_tqdm_on_load": False}
#: Of sounds, in seconds: of one that ends in the middle of everything, and of a very short one.
LENGTHS = (0.5, 0.94567, 0.05, 1.41)
ALL = SamplingParams(temperature=0.0, max_tokens=None, logprobs=0)
KINDS = ("ctc", "rnnt", "tdt", *STREAMING)


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


def marks_of(kind: str) -> FrameMarks:
    return FrameMarks(VOCAB, 501 if kind in STREAMING else 500)


def asked(number: int) -> dict[str, Any]:
    return {"prompt_token_ids": [0], "multi_modal_data": {"audio": (tones(LENGTHS[number], number), RATE)}}


@functools.cache
def given_by_theirs(folder: Path, kind: str, number: int) -> tuple[list[int], list[int]]:
    return theirs(folder, kind, tones(LENGTHS[number], number))


def spans(ids: list[int], passed: list[int], kind: str) -> list[tuple[int, int]]:
    """Tokens that are said, and the frames that they are said at, of what transformers gives of each of its steps."""
    frames = np.cumsum([0, *passed])[:-1].tolist()
    pairs = list(zip(ids, frames, strict=True))
    if kind == "ctc":
        pairs = [next(each) for _, each in groupby(pairs, key=lambda pair: pair[0])]
    return [pair for pair in pairs if pair[0] != BLANK]


@pytest.mark.parametrize(("name", "called"), [("", PARAKEET), ("streaming", OF_STREAMS)])
def test_spectra_are_those_of_transformers(name: str, called: str, tmp_path: Path) -> None:
    extractor(name).save_pretrained(tmp_path)
    mel = open_nemo_mel(tmp_path, 16, 40, called)
    for seconds in LENGTHS:
        given = heard(tones(seconds), name)
        count = int(given["attention_mask"].sum())
        np.testing.assert_allclose(mel.features(tones(seconds)), given["input_features"][0, :count].numpy(), atol=4e-4)


def test_tokens_and_frames_as_transformers(folder: Path, kind: str, llm: LLM) -> None:
    """Alone and in a batch."""
    marks = marks_of(kind)
    outputs = llm.generate([asked(number) for number in range(len(LENGTHS))], ALL, use_tqdm=False)
    for number, output in enumerate(outputs):
        ids, passed = given_by_theirs(folder, kind, number)
        found = output.outputs[0]
        assert [(token, frame) for token, _, frame in marks.spans(found.token_ids)] == spans(ids, passed, kind)
        assert found.token_ids[-1] == marks.end and found.finish_reason == "stop"
        told = [marks.count(each) for each in found.token_ids]
        assert sum(each or 0 for each in told) == sum(passed)
    assert len({output.outputs[0].text for output in outputs}) == len(LENGTHS), "all sounds are alike"
    (alone,) = llm.generate([asked(1)], ALL, use_tqdm=False)
    assert alone.outputs[0] == outputs[1].outputs[0]


def test_logprobs_as_transformers(folder: Path, kind: str, llm: LLM) -> None:
    """Of CTC the surest of a token's frames; of the first that a transducer says."""
    (output,) = llm.generate([asked(1)], ALL, use_tqdm=False)
    told, places = output.outputs[0].logprobs or [], marks_of(kind).spans(output.outputs[0].token_ids)
    found = [(told[place][token].logprob, frame) for token, place, frame in places]
    given, model = heard(tones(LENGTHS[1], 1), kind), opened(folder, kind)
    with torch.no_grad():
        if kind == "ctc":
            rows = torch.log_softmax(model(**given).logits[0], -1).max(-1)
            frames = zip(rows.indices.tolist(), rows.values.tolist(), strict=True)
            runs = [(token, max(value for _, value in each)) for token, each in groupby(frames, key=lambda one: one[0])]
            wanted = [value for token, value in runs if token != BLANK]
            assert [value for value, _ in found] == pytest.approx(wanted, abs=5e-4)
            return
        first = found[0][1]
        rows = model.get_audio_features(**given).pooler_output[:, first : first + 1]
        logits = model.joint(model.decoder(torch.tensor([[BLANK]])), rows)[0, -1, :VOCAB]
    assert found[0][0] == pytest.approx(float(torch.log_softmax(logits, -1).max()), abs=5e-4)


def test_what_is_said_is_written_down(folder: Path, kind: str, llm: LLM) -> None:
    """As transformers' processor has it, with times of tokens; words are between blanks."""
    sound = tones(LENGTHS[3], 3)
    ids, passed = given_by_theirs(folder, kind, 3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = ParakeetProcessor(extractor(), tokenizer, decoder_type="rnnt" if kind in STREAMING else kind)
    (found,) = llm.transcribe((sound, RATE), TranscriptionParams(timestamps=True, words=True), use_tqdm=False)
    plain = spans(ids, passed, kind)
    assert found.text == processor.decode([token for token, _ in plain], skip_special_tokens=True, group_tokens=False)
    assert found.text == "".join(each.text for each in found.segments)
    assert len(found.words) > 1 or kind != "ctc"
    assert [each.word for each in found.words] == found.text.split()
    assert found.segments[0].start == found.words[0].start and found.segments[-1].end == found.words[-1].end
    if kind == "ctc":
        starts = [frame for token, frame in plain if token != tokenizer.unk_token_id]
        assert found.words[0].start == pytest.approx(0.08 * starts[0])
        return
    _, (times,) = processor.decode(torch.tensor([ids]), durations=torch.tensor([passed]))
    times = [each for each in times if each["token"]]
    text, begins, ends = "", {}, {}
    for each in times:
        begins[len(text) + len(each["token"]) - len(each["token"].lstrip())] = each["start"]
        text += each["token"]
        ends[len(text)] = each["end"]
    assert text == found.text
    place = 0
    for word in found.words:
        place = text.index(word.word, place)
        assert word.start == pytest.approx(min(begins[place], len(sound) / RATE))
        place += len(word.word)
        assert word.end == pytest.approx(min(ends[place], len(sound) / RATE))


def test_a_long_sound_is_heard_in_windows(folder: Path, llm: LLM) -> None:
    """Each by itself; times go on."""
    sound = np.concatenate([tones(38.0, 5), np.zeros(RATE, np.float32), tones(1.9, 6)])
    (whole,) = llm.transcribe((sound, RATE), TranscriptionParams(words=True), use_tqdm=False)
    assert whole.duration == pytest.approx(40.9) and whole.segments == []
    assert whole.words[-1].end > 40 and [each.start for each in whole.words] == sorted(
        each.start for each in whole.words
    )
    assert llm.tells_times and llm.tells_words


def test_it_is_told_which_language_is_spoken(folder: Path, kind: str, llm: LLM, tmp_path: Path) -> None:
    """By the numbers that its processor names; by none it finds out."""
    if kind != "asked":
        return
    found, sound = [], (tones(0.9), RATE)
    for language, told in ((None, 5), ("en", 0), ("fr", 8), ("hi", 6)):
        asked_for = TranscriptionParams(language=language)
        if told == 8:
            with pytest.raises(InvalidParams, match="language=fr is none that this model knows: ar, en, es, hi, zh"):
                llm.transcribe(sound, asked_for, use_tqdm=False)
            continue
        (text,) = llm.transcribe(sound, asked_for, use_tqdm=False)
        plain = [token for token, _ in spans(*theirs(folder, kind, sound[0], told), kind)]
        assert text.text == AutoTokenizer.from_pretrained(folder).decode(
            plain, skip_special_tokens=True, group_tokens=False
        )
        assert text.language == (language or "")
        found.append(text.text)
    assert len(set(found)) > 1, "it makes no difference"
    own = shutil.copytree(folder, tmp_path / "own")
    extracted = json.loads((own / "preprocessor_config.json").read_text())
    said = {"feature_extractor": extracted, "prompt_dictionary": {"fr-CA": 7, "fr": 0, "fr-FR": 2, "auto": 5}}
    (own / "processor_config.json").write_text(json.dumps(said))
    with LLM(str(own), dtype="float32", **SETTINGS) as other:
        (text,) = other.transcribe(sound, TranscriptionParams(language="fr"), use_tqdm=False)
    assert text.text == found[1]


def test_refused(folder: Path, llm: LLM) -> None:
    for params, told in (
        ({"temperature": 1.0}, "temperature"),
        ({"logprobs": 2}, "logprobs"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"repetition_penalty": 2.0}, "penalties"),
    ):
        with pytest.raises(UnsupportedFeature, match=told):
            llm.generate([asked(0)], SamplingParams(**{"temperature": 0.0, **params}), use_tqdm=False)
    with pytest.raises(UnsupportedFeature, match="prompt: this model writes"):
        llm.generate([{**asked(0), "prompt_token_ids": [5, 6]}], ALL, use_tqdm=False)
    for bad, told in (
        (TranscriptionParams(prompt="x"), "prompt: this model is told nothing"),
        (TranscriptionParams(task="translate"), "as it is said"),
    ):
        with pytest.raises(UnsupportedFeature, match=told):
            llm.transcribe((tones(0.9), RATE), bad)
    guesses = {"method": "ngram", "num_speculative_tokens": 2}
    with pytest.raises(ConfigError, match="which nobody guesses"):
        LLM(str(folder), speculative_config=guesses, **SETTINGS)


def test_an_engine_directory_writes_the_same(folder: Path, llm: LLM, tmp_path: Path) -> None:
    """In float32; with the encoder, the head and the LSTM in int8 a text all the same."""
    build(folder, tmp_path / "engine", BuildConfig(dtype="float32"))
    (wanted,) = llm.generate([asked(3)], ALL, use_tqdm=False)
    with LLM(str(tmp_path / "engine"), dtype="float32", **SETTINGS) as own:
        assert own.generate([asked(3)], ALL, use_tqdm=False)[0].outputs[0] == wanted.outputs[0]
    with LLM(str(folder), dtype="float32", quantization="int8", **SETTINGS) as own:
        assert own.generate([asked(3)], ALL, use_tqdm=False)[0].outputs[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("kind_of", "file", "changes", "told"),
    [
        ("ctc", "config.json", {"encoder_config": {"subsampling_factor": 4}}, "subsampling_factor=4"),
        ("ctc", "config.json", {"pad_token_id": VOCAB}, f"pad_token_id={VOCAB}"),
        ("tdt", "config.json", {"durations": [0, 2]}, "durations="),
        ("rnnt", "config.json", {"decoder_hidden_size": 48}, "encoder_projector|lm_head"),
        ("ctc", "preprocessor_config.json", {"feature_size": 80}, "feature_size=80 must be num_mel_bins=16"),
    ],
)
def test_bad_files(kind_of: str, file: str, changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = save(tmp_path, kind_of)
    data = json.loads((path / file).read_text())
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    (path / file).write_text(json.dumps(data))
    with pytest.raises(Exception, match=told):
        LLM(str(path), **SETTINGS)
