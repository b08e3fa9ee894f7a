"""A picture and a sound in one message over HTTP, by OpenAI's client; and what is said, by a model that also sees."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import soundfile

from albireo import LLM, SamplingParams
from server_process import Server, lasting
from tiny_films import picture
from tiny_hearers import RATE, save, sound

SOUND, PICTURE = sound(1.3, 4), picture(40, 50)
SETTINGS = ["--dtype", "float32", "--served-model-name", "omni", "--num-threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("omni"), "qwen2_5_omni")


@pytest.fixture(scope="module")
def omni(ending: ExitStack, folder: Path) -> Iterator[Server]:
    yield from lasting(ending, str(folder), *SETTINGS)


def wav() -> bytes:
    """16 bits would be another sound."""
    file = io.BytesIO()
    soundfile.write(file, SOUND, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, "PNG")
    return file.getvalue()


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


def test_openais_client_asks_about_a_picture_and_a_sound(omni: Server, folder: Path) -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        own_parts = {"type": "image", "image": PICTURE}, {"type": "audio", "audio": (SOUND, RATE)}
        (own,) = llm.chat(asked(*own_parts), greedy, use_tqdm=False)
        few = SamplingParams(temperature=0.0, max_tokens=8)
        (said,) = llm.transcribe((SOUND, RATE), use_tqdm=False, sampling_params=few)
    client = omni.client()
    parts = (
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{coded(png())}"}},
        {"type": "input_audio", "input_audio": {"data": coded(wav()), "format": "wav"}},
    )
    got = client.chat.completions.create(
        model="omni", messages=asked(*parts), temperature=0, max_tokens=8,
        extra_body={"ignore_eos": True, "mm_processor_kwargs": {"use_audio_in_video": False}},
    )  # fmt: skip
    assert got.choices[0].message.content == own.outputs[0].text
    assert got.usage.prompt_tokens == len(own.prompt_token_ids)
    heard = client.audio.transcriptions.create(
        model="omni", file=("a.wav", wav()), temperature=0, extra_body={"max_completion_tokens": 8}
    )
    assert heard.text == said.text


def test_what_is_heard_in_a_video_is_refused_by_name(omni: Server) -> None:
    body = {"model": "omni", "messages": asked(), "mm_processor_kwargs": {"use_audio_in_video": True}}
    got = omni.http.post("/v1/chat/completions", json=body)
    assert got.status_code == 400
    assert got.json()["error"]["param"] == "mm_processor_kwargs"
    assert "use_audio_in_video" in got.json()["error"]["message"]
    body = {"model": "omni", "messages": asked(), "modalities": ["text", "audio"]}
    assert omni.http.post("/v1/chat/completions", json=body).json()["error"]["param"] == "modalities"
