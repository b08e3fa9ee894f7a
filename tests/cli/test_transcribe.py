"""transcribe: text, subtitles and JSON of files; errors that name the file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import soundfile

from albireo import LLM, TranscriptionParams
from albireo.api.sources.locate import BUNDLED
from tiny_speech import RATE, save, sound

KV = ("--kv-cache-memory-bytes", str(1 << 24))
SAMPLES = sound(1.7, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = save(tmp_path_factory.mktemp("whisper"))
    soundfile.write(found / "talk.wav", SAMPLES, RATE, subtype="FLOAT")
    soundfile.write(found / "talk.flac", sound(0.4, 2), RATE)
    return found


@pytest.fixture(scope="module")
def told(folder: Path):
    with LLM(str(folder), kv_cache_memory_bytes=1 << 24) as llm:
        return llm.transcribe((SAMPLES, RATE), TranscriptionParams(language="en", timestamps=True))[0]


def test_text_of_several_files(albireo, folder):
    result = albireo("transcribe", folder, folder / "talk.wav", folder / "talk.flac", *KV)
    with LLM(str(folder), kv_cache_memory_bytes=1 << 24) as llm:
        texts = [
            each.text for each in llm.transcribe([(folder / name).read_bytes() for name in ("talk.wav", "talk.flac")])
        ]
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "".join(f"{text}\n" for text in texts)


def test_json_and_subtitles(albireo, folder, told):
    asked = ("transcribe", folder, folder / "talk.wav", "--language", "en", *KV)
    found = json.loads(albireo(*asked, "--output", "json").stdout)
    assert found["text"] == told.text and found["language"] == "en" and found["file"].endswith("talk.wav")
    assert [each["start"] for each in found["segments"]] == [each.start for each in told.segments]
    srt, vtt = (albireo(*asked, "--output", kind).stdout for kind in ("srt", "vtt"))
    assert srt.count(" --> ") == vtt.count(" --> ") == len(told.segments) and vtt.startswith("WEBVTT\n\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("missing.wav",), "missing.wav"),
        (("config.json",), "config.json.*no sound"),
        (("talk.wav", "--language", "english"), "language"),
        (("talk.wav", "--language", "fr"), "de, en, yue"),
    ],
)
def test_errors_name_what_is_wrong(albireo, folder, words, says):
    result = albireo("transcribe", folder, folder / words[0], *words[1:], *KV)
    assert result.exit_code == 1 and re.search(says, result.stderr), result.stderr


def test_a_model_that_hears_nothing(albireo, folder):
    result = albireo("transcribe", BUNDLED, folder / "talk.wav")
    assert result.exit_code == 1 and "hears none" in result.stderr


def test_who_asks_it_for_text_is_told_how_it_is_used(albireo, folder):
    assert "albireo transcribe" in (told := albireo("generate", folder, "Hi", *KV).stderr) and "0 sounds" in told
    assert f"with a model of speech: albireo transcribe {folder} FILE" in albireo("chat", folder).stderr


def test_what_inspect_and_plan_say(albireo, folder):
    told = albireo("inspect", folder).stdout
    assert "encoder" in told and "1 s" in told
    assert "text          is what it hears: transcribe, not generate or chat" in told
    planned = albireo("plan", folder, "--input-len", "60", "--output-len", "20").stdout
    assert "hearing" in planned and "50 prompt tokens" in planned and "not predicted" in planned


def test_a_build_and_what_is_not_done_with_one(albireo, folder, tmp_path):
    built = albireo("build", folder, "-o", tmp_path / "built")
    assert built.exit_code == 0 and f"albireo transcribe {tmp_path / 'built'} FILE" in built.stdout
    asked = (folder / "talk.wav", "--language", "de", *KV)
    assert albireo("transcribe", tmp_path / "built", *asked).stdout == albireo("transcribe", folder, *asked).stdout
    verified = albireo("verify", tmp_path / "built", "--against", folder)
    assert verified.exit_code != 0 and "hear" in verified.stderr
    assert "0 sounds" in albireo("bench", "latency", folder, "--input-len", "8", "--output-len", "8").stderr
