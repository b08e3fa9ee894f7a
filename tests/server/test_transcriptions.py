"""Sounds over HTTP: OpenAI's transcriptions and translations, by its client; refusals; and an engine that is killed
while it writes one down."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from albireo import LLM, TranscriptionParams
from albireo.outputs import Transcript
from server_process import Server, lasting, wait_until
from tiny_speech import RATE, save, sound

SETTINGS = ["--dtype", "float32", "--served-model-name", "ear", "--kv-cache-memory-bytes", str(1 << 24)]
SETTINGS += ["--max-audio-seconds", "6"]
#: Three windows, and one.
LONG, SHORT = sound(2.6, 1), sound(0.6, 2)


def file_of(samples: np.ndarray, kind: str = "WAV", rate: int = RATE) -> tuple[str, bytes]:
    """As clients send it. 16 bits would be another sound."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return f"sound.{kind.lower()}", file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("ear"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", num_threads=1, kv_cache_memory_bytes=1 << 24) as found:
        yield found


@pytest.fixture(scope="module")
def server(ending: ExitStack, folder: Path) -> Iterator[Server]:
    yield from lasting(ending, str(folder), *SETTINGS, is_poisoned=True)


def told(llm: LLM, samples: np.ndarray, **asked: Any) -> Transcript:
    return llm.transcribe((samples, RATE), TranscriptionParams(**asked), use_tqdm=False)[0]


@pytest.mark.parametrize("samples", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # translations, by the client
def test_openais_client(samples: np.ndarray, server: Server, llm: LLM) -> None:
    audio = server.client().audio
    asked = {"model": "ear", "file": file_of(samples)}
    assert audio.transcriptions.create(**asked).text == told(llm, samples).text
    spoken = audio.transcriptions.create(**asked, language="en", prompt="A star.")
    assert spoken.text == told(llm, samples, language="en", prompt="A star.").text
    assert spoken.usage.type == "duration" and spoken.usage.seconds == np.ceil(len(samples) / RATE)
    text = audio.transcriptions.create(**asked, response_format="text")
    assert text.strip() == told(llm, samples).text
    assert audio.translations.create(**asked).text == told(llm, samples, task="translate").text
    wanted = told(llm, samples, language="de", timestamps=True)
    found = audio.transcriptions.create(
        **asked, language="de", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert (found.text, found.language, found.task) == (wanted.text, "de", "transcribe")
    assert found.duration == pytest.approx(len(samples) / RATE)
    assert [(each.start, each.end, each.text, each.tokens) for each in found.segments] == [
        (each.start, each.end, each.text, each.token_ids) for each in wanted.segments
    ]
    for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
        values = [getattr(each, name) for each in wanted.segments]
        assert [getattr(each, name) for each in found.segments] == pytest.approx(values)


@pytest.mark.parametrize("samples", [LONG, SHORT], ids=["long", "short"])
def test_a_stream_tells_windows_in_order(samples: np.ndarray, server: Server, llm: LLM) -> None:
    events = list(
        server.client().audio.transcriptions.create(model="ear", file=file_of(samples), language="en", stream=True)
    )
    # what is told is not taken back, doubtful or not
    wanted = told(llm, samples, language="en", temperatures=()).text
    assert "".join(each.delta for each in events[:-1]) == wanted and len(events) > 3
    assert events[-1].type == "transcript.text.done" and events[-1].text == wanted
    assert {each.type for each in events[:-1]} == {"transcript.text.delta"}


def test_subtitles_and_other_formats_of_sound(server: Server, llm: LLM) -> None:
    audio = server.client().audio
    srt = audio.transcriptions.create(model="ear", file=file_of(LONG), language="en", response_format="srt")
    vtt = audio.transcriptions.create(model="ear", file=file_of(LONG), language="en", response_format="vtt")
    count = len(told(llm, LONG, language="en", timestamps=True).segments)
    assert srt.startswith("1\n00:00:0") and srt.count(" --> ") == count
    assert vtt.startswith("WEBVTT\n\n00:00:0") and vtt.count(" --> ") == count
    for kind, rate in (("FLAC", RATE), ("OGG", RATE), ("MP3", 44100), ("WAV", 8000)):
        assert isinstance(audio.transcriptions.create(model="ear", file=file_of(LONG, kind, rate)).text, str)


def test_sampled_with_a_seed(server: Server) -> None:
    asked = {"model": "ear", "file": file_of(SHORT), "language": "en", "temperature": 1.0}
    create = server.client().audio.transcriptions.create
    first, again, other = (create(**asked, extra_body={"seed": seed}).text for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"file": None}, 400, "no file"),
        ({"file": b"this is no sound, it is text"}, 400, "no sound"),
        ({"file": b""}, 400, "no bytes"),
        ({"model": "other"}, 404, "does not exist"),
        ({"language": "fr"}, 400, "de, en, yue"),
        ({"language": "english"}, 400, "two or three letters"),
        ({"response_format": "html"}, 400, "response_format"),
        ({"temperature": "warm"}, 400, "temperature"),
        ({"temperature": "-1"}, 400, "temperature"),
        ({"colour": "red"}, 400, "colour"),
        ({"timestamp_granularities[]": "word", "response_format": "verbose_json"}, 400, "word"),
        ({"timestamp_granularities[]": "segment"}, 400, "verbose_json"),
        ({"stream": "true", "response_format": "srt"}, 400, "stream"),
        ({"include[]": "logprobs"}, 400, "include"),
        ({"chunking_strategy": "server_vad"}, 400, "chunking_strategy"),
        ({"max_completion_tokens": "0"}, 400, "max_completion_tokens"),
    ],
    ids=str,
)
def test_refused(fields: dict[str, Any], status: int, words: str, server: Server) -> None:
    given = {"model": "ear", "file": file_of(SHORT)[1], **fields}
    files = {"file": ("sound.wav", data)} if (data := given.pop("file")) is not None else {"x": (None, "")}
    if "x" in files:
        files = {"language": (None, "en")}
    got = server.http.post("/v1/audio/transcriptions", data=given, files=files)
    assert got.status_code == status and words in got.json()["error"]["message"], got.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"file": b"this is no sound, it is text"}, "file"),
        ({"file": b""}, "file"),
        ({"language": "fr"}, "language"),
        ({"temperature": "nan"}, "temperature"),
    ],
    ids=str,
)
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str, server: Server) -> None:
    data = {"model": "ear", **fields}
    files = {"file": ("sound.wav", data.pop("file", file_of(SHORT)[1]))}
    got = server.http.post("/v1/audio/transcriptions", data=data, files=files)
    assert got.status_code == 400 and got.json()["error"]["param"] == param, got.text


def test_bodies_that_are_no_forms(server: Server) -> None:
    post = server.http.post
    assert post("/v1/audio/transcriptions", json={"file": "x"}).status_code == 400
    twice = [("file", ("a.wav", file_of(SHORT)[1])), ("file", ("b.wav", file_of(SHORT)[1]))]
    assert "several files" in post("/v1/audio/transcriptions", files=twice).text
    assert (
        "comes 2 times"
        in post("/v1/audio/transcriptions", data={"language": ["en", "de"]}, files={"file": file_of(SHORT)}).text
    )
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert "last boundary" in post("/v1/audio/transcriptions", content=cut, headers=headers).text


def test_sounds_that_are_too_long(server: Server) -> None:
    for kind in ("WAV", "FLAC", "OGG"):
        got = server.http.post("/v1/audio/transcriptions", files={"file": file_of(sound(6.5, 3), kind)})
        assert got.status_code == 400 and "at most 6 s" in got.json()["error"]["message"]
    assert server.http.post("/v1/audio/transcriptions", files={"file": file_of(LONG)}).status_code == 200


def test_other_routes_need_the_sound(server: Server) -> None:
    got = server.http.post("/v1/completions", json={"prompt": "hello"})
    assert got.status_code == 400 and "no sound" in got.json()["error"]["message"]
    assert server.http.post("/v1/embeddings", json={"input": "hello"}).status_code == 400


def test_watchers_learn_that_chats_have_no_sounds(server: Server) -> None:
    """What the page asks before it offers to send some."""
    with server.http.stream("GET", "/v1/stats") as response:
        line = next(line for line in response.iter_lines() if line.startswith("data: "))
    engine = json.loads(line.removeprefix("data: "))["engine"]
    assert engine["hears_sounds"] is False and engine["reads_images"] is False
    messages = [{"role": "user", "content": "Hello"}]
    got = server.http.post("/v1/chat/completions", json={"model": "ear", "messages": messages})
    assert got.status_code == 400, "there are none"


def test_nothing_of_a_sound_or_its_text_is_logged(server: Server) -> None:
    create = server.client().audio.transcriptions.create
    num_before = len(server.lines)
    text = create(model="ear", file=file_of(SHORT), prompt="secret words").text
    lines = wait_until(lambda: [each for each in server.lines[num_before:] if "/v1/audio" in each], server)
    assert all("secret" not in line and text not in json.loads(line).values() for line in lines)


def test_a_model_that_hears_nothing(killable: Server) -> None:
    got = killable.http.post("/v1/audio/transcriptions", files={"file": file_of(SHORT)})
    assert got.status_code == 400 and "hears none" in got.json()["error"]["message"]


def test_nobody_notices_that_the_engine_was_killed(server: Server, llm: LLM) -> None:
    server.gate.hold(6)
    with ThreadPoolExecutor(1) as asking:
        create = server.client().audio.transcriptions.create
        got = asking.submit(create, model="ear", file=file_of(LONG), language="en")
        server.kill_held()
        server.gate.open()
        assert got.result().text == told(llm, LONG, language="en").text
