"""Sounds in chats over HTTP: OpenAI's input_audio by its client, vLLM's audio_url, what is written down by a model that
is asked in a prompt; refusals; and an engine that is killed while it answers about one."""

from __future__ import annotations

import base64
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

from albireo import LLM, SamplingParams, TranscriptionParams
from server_process import Server, lasting
from tiny_hearers import RATE, save, sound

NUM_TOKENS = 10
SOUND = sound(2.3, 4)
GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
SETTINGS = ["--dtype", "float32", "--served-model-name", "ear", "--limit-mm-per-prompt", '{"audio": 2}']


def wav(samples: np.ndarray = SOUND, kind: str = "WAV") -> bytes:
    """16 bits would be another sound."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return file.getvalue()


DATA = base64.b64encode(wav()).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("ear"), "qwen3_asr")


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), dtype="float32", num_threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def ear(ending: ExitStack, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    files = tmp_path_factory.mktemp("files")
    (files / "sound.wav").write_bytes(wav())
    allowed = ["--allowed-local-media-path", str(files)]
    yield from lasting(ending, str(folder), *SETTINGS, *allowed, is_poisoned=True)


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


def given(data: str = DATA) -> dict[str, Any]:
    """As OpenAI has it."""
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def chat(server: Server, messages: list[dict[str, Any]], num_tokens: int = NUM_TOKENS, **more: Any) -> Any:
    return server.client().chat.completions.create(
        model="ear", messages=messages, temperature=0, max_tokens=num_tokens, extra_body={"ignore_eos": True}, **more
    )


def test_openais_client_asks_about_a_sound(ear: Server, llm: LLM) -> None:
    (own,) = llm.chat(asked({"type": "audio", "audio": (SOUND, RATE)}), GREEDY, use_tqdm=False)
    file = "file://" + next(iter(Path(ear.process.args[-1]).iterdir())).as_posix()
    urls = [{"type": "audio_url", "audio_url": {"url": url}} for url in (f"data:audio/wav;base64,{DATA}", file)]
    for part in (given(), *urls):
        got = chat(ear, asked(part))
        assert got.choices[0].message.content == own.outputs[0].text
        assert got.usage.prompt_tokens == len(own.prompt_token_ids)
    streamed = [chunk.choices[0].delta.content or "" for chunk in chat(ear, asked(given()), stream=True)]
    assert "".join(streamed) == own.outputs[0].text


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([given()] * 3, "the prompt has 3 sounds; limit_mm_per_prompt allows 2"),
        ([given("AAAA")], "3 bytes"),
        ([given("A")], "is not base64"),
        ([{"type": "input_audio", "input_audio": {"format": "wav"}}], "without input_audio"),
        ([{"type": "audio_url", "audio_url": {"url": "https://example.org/a.mp3"}}], "allowed-media-domains"),
        ([{"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}}], "is not below the folder"),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
            "this model hears, and sees none",
        ),
        ([{"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}], "this model hears, and sees none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_say_what_is_wrong(parts: list[dict[str, Any]], words: str, ear: Server) -> None:
    got = ear.http.post("/v1/chat/completions", json={"model": "ear", "messages": asked(*parts)})
    assert got.status_code == 400
    error = got.json()["error"]
    assert words in error["message"] and error["param"] == "messages" and DATA[:200] not in error["message"]


def events(server: Server) -> Iterator[dict[str, Any]]:
    """Of /v1/stats."""
    with server.http.stream("GET", "/v1/stats") as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def test_a_model_of_text_says_so(server: Server) -> None:
    got = server.http.post("/v1/chat/completions", json={"model": "story", "messages": asked(given())})
    assert got.status_code == 400 and "this model reads text only" in got.json()["error"]["message"]
    assert next(events(server))["engine"]["hears_sounds"] is False


def test_watchers_learn_of_sounds(ear: Server) -> None:
    watched = events(ear)
    engine = next(watched)["engine"]
    assert engine["hears_sounds"] is True and engine["reads_images"] is False
    with ThreadPoolExecutor(1) as asking:
        asking.submit(chat, ear, asked(given(), given())).result()
    over = next(event["over"] for event in watched if event["over"])
    assert [(request["num_sounds"], request["num_images"]) for request in over] == [(2, 0)]


def test_what_is_said_is_written_down(ear: Server, llm: LLM) -> None:
    """By a model that is asked in a prompt; streams begin where the text does."""
    server = ear
    audio = server.client().audio.transcriptions
    limit = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS)
    for more in ({}, {"language": "de", "prompt": "Ulm"}):
        (own,) = llm.transcribe((SOUND, RATE), TranscriptionParams(**more), limit, use_tqdm=False)
        sent = {"model": "ear", "file": ("a.wav", wav()), **more}
        sent["extra_body"] = {"max_completion_tokens": NUM_TOKENS}
        found = audio.create(**sent)
        assert found.text == own.text and found.usage.seconds == 3
        events = list(audio.create(**sent, stream=True))
        assert events[-1].type == "transcript.text.done" and events[-1].text.strip() == own.text
        assert "".join(event.delta for event in events[:-1]) == events[-1].text
    for more, words, param in (
        ({"response_format": "srt"}, "does not say when", "response_format"),
        ({"language": "eo"}, "none that this model", "language"),
    ):
        got = server.http.post(
            "/v1/audio/transcriptions", data={"model": "ear", **more}, files={"file": ("a.wav", wav())}
        )
        error = got.json()["error"]
        assert got.status_code == 400 and words in error["message"] and error["param"] == param
    got = server.http.post("/v1/audio/translations", data={"model": "ear"}, files={"file": ("a.wav", wav())})
    assert got.status_code == 400 and "as it is said" in got.json()["error"]["message"]


def test_nobody_notices_that_the_engine_was_killed(ear: Server, llm: LLM) -> None:
    (own,) = llm.chat(asked({"type": "audio", "audio": (SOUND, RATE)}), GREEDY, use_tqdm=False)
    ear.gate.hold(4)
    with ThreadPoolExecutor(1) as asking:
        got = asking.submit(chat, ear, asked(given()))
        ear.kill_held()
        ear.gate.open()
        assert got.result().choices[0].message.content == own.outputs[0].text
