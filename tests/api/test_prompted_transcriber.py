"""PromptedTranscriber: what models say of a sound, beside what was said in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albireo import TranscriptionParams
from albireo.api.transcribe.frame_transcriber import FrameTranscriber
from albireo.api.transcribe.prompted_transcriber import AudioFlamingoTranscriber, Qwen3AsrTranscriber
from albireo.text.tokenizer import Tokenizer
from tiny_hearers import save


def test_a_text_is_what_stands_behind_the_language() -> None:
    """Qwen3-ASR says it itself; what it begins with is not told before that is known."""
    transcriber = Qwen3AsrTranscriber.__new__(Qwen3AsrTranscriber)
    left, given = TranscriptionParams(), TranscriptionParams(language="en")
    assert transcriber.spoken("language English<asr_text>Hello", False, left) == "Hello"
    assert transcriber.spoken("language None<asr_text>", True, left) == ""
    assert [transcriber.spoken(text, False, left) for text in ("", "lang", "language Eng", "Lan")] == [
        "",
        "",
        "",
        "Lan",
    ]
    assert transcriber.spoken("language", True, left) == transcriber.spoken("language", False, given) == "language"


@pytest.mark.parametrize(
    "said",
    [
        'The spoken content of the audio is "Hello. Who is it?".',
        "The content of the input audio is 'Hello'",
        "The transcription of the audio is The content of the input audio is x.",
        ' "Hello." ',
        "Hello.",
        '"',
        "",
    ],
)
def test_what_is_around_a_text_is_no_part_of_it(said: str) -> None:
    """Of Audio Flamingo: as transformers' own processor takes it away; nothing is told before that is known."""
    theirs = pytest.importorskip("transformers").AudioFlamingo3Processor
    transcriber = AudioFlamingoTranscriber.__new__(AudioFlamingoTranscriber)
    wanted = theirs._strip_assistant_prefix_and_quotes(None, said)
    assert transcriber.spoken(said, True, TranscriptionParams()) == wanted
    assert transcriber.spoken(said, False, TranscriptionParams()) == ""


@pytest.mark.parametrize(
    ("said", "code"),
    [("language English<asr_text>x", "en"), ("language Cantonese<asr_text>", "yue"), ("language None<asr_text>", None),
     ("language English", None), ("language Chinese,English<asr_text>x", "zh"), ("x", None)],
)  # fmt: skip
def test_languages_are_read(tmp_path: Path, said: str, code: str | None) -> None:
    tokenizer = Tokenizer.from_directory(save(tmp_path, "qwen3_asr"))
    transcriber = Qwen3AsrTranscriber.__new__(Qwen3AsrTranscriber)
    transcriber._tokenizer = tokenizer
    assert transcriber.language(tokenizer.encode(said)) == code


def test_what_frames_say_that_is_no_letter_is_no_language(tmp_path: Path) -> None:
    """The token of what is unknown looks like that of a language."""
    words = ("<pad>", "<unk>", "|", "a", "<de-DE>", "<en>")
    (tmp_path / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    transcriber = FrameTranscriber.__new__(FrameTranscriber)
    transcriber._tokenizer = Tokenizer.from_directory(tmp_path)
    said = ((3, 1, 3), (0, 3), (1, 3, 4), (3, 2, 5))
    assert [transcriber.language(each) for each in said] == [None, None, "de", "en"]
    left = TranscriptionParams()
    assert [transcriber.spoken(text, True, left) for text in ("a <de-DE>", "a <unk> b")] == ["a", "a <unk> b"]
