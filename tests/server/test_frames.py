"""Sounds over HTTP, of a model that says of each frame what is said there: times of words, subtitles, streams."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from albireo import LLM, TranscriptionParams
from albireo.outputs import Transcript
from server.test_transcriptions import file_of
from server_process import Server, lasting
from tiny_parakeet import RATE, save, tones

SOUND = tones(2.9, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("ear"), "ctc")


@pytest.fixture(scope="module")
def wanted(folder: Path) -> Transcript:
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        asked = TranscriptionParams(timestamps=True, words=True)
        (found,) = llm.transcribe((SOUND, RATE), asked, use_tqdm=False)
    assert len(found.words) > 2
    return found


@pytest.fixture(scope="module")
def server(ending: ExitStack, folder: Path) -> Iterator[Server]:
    yield from lasting(ending, str(folder), "--dtype", "float32", "--served-model-name", "ear", is_poisoned=True)


def test_times_of_words(server: Server, wanted: Transcript) -> None:
    asked: dict[str, Any] = {"model": "ear", "file": file_of(SOUND), "response_format": "verbose_json"}
    create = server.client().audio.transcriptions.create
    both = create(**asked, timestamp_granularities=["word", "segment"])
    assert both.text == wanted.text and both.duration == pytest.approx(2.9)
    assert [(each.word, each.start, each.end) for each in both.words] == [
        (each.word, each.start, each.end) for each in wanted.words
    ]
    assert [(each.text, each.tokens) for each in both.segments] == [
        (each.text, each.token_ids) for each in wanted.segments
    ]
    words, plain = create(**asked, timestamp_granularities=["word"]), create(**asked)
    assert words.segments is None and words.words == both.words
    assert plain.words is None and plain.segments == both.segments


def test_streams_and_subtitles(server: Server, wanted: Transcript) -> None:
    create = server.client().audio.transcriptions.create
    events = list(create(model="ear", file=file_of(SOUND), stream=True))
    assert "".join(each.delta for each in events[:-1]) == wanted.text == events[-1].text and len(events) > 1
    srt = create(model="ear", file=file_of(SOUND), response_format="srt")
    assert srt.count(" --> ") == len(wanted.segments)


def test_refused(server: Server) -> None:
    create = server.client().audio.transcriptions.create
    for fields in ({"temperature": 0.5}, {"language": "en"}, {"prompt": "A star."}):
        with pytest.raises(openai.BadRequestError, match=next(iter(fields))):
            create(model="ear", file=file_of(SOUND), **fields)


def test_nobody_notices_that_the_engine_was_killed(server: Server, wanted: Transcript) -> None:
    """What was told of the output is gone on from."""
    server.gate.hold(4)
    with ThreadPoolExecutor(1) as asking:
        got = asking.submit(server.client().audio.transcriptions.create, model="ear", file=file_of(SOUND))
        server.kill_held()
        server.gate.open()
        assert got.result().text == wanted.text


def test_other_routes_need_the_sound(server: Server) -> None:
    got = server.http.post("/v1/completions", json={"prompt": "hello", "temperature": 0})
    assert got.status_code == 400 and "no sound" in got.json()["error"]["message"]
