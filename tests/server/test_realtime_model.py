"""What Voxtral Realtime writes down over HTTP: by OpenAI's client, whole and as it comes; by an engine in a process of
its own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import soundfile

from albireo import LLM
from server_process import Server, lasting
from tiny_hearers import RATE, sound
from tiny_realtime import save

SOUND = sound(2.77, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("realtime"))


@pytest.fixture(scope="module")
def server(ending: ExitStack, folder: Path) -> Iterator[Server]:
    yield from lasting(ending, str(folder), "--dtype", "float32", "--served-model-name", "ear")


def test_what_is_said_is_that_of_the_library(server: Server, folder: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, SOUND, RATE, format="WAV", subtype="FLOAT")
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        (own,) = llm.transcribe((SOUND, RATE), use_tqdm=False)
    asked = {"model": "ear", "file": ("a.wav", file.getvalue())}
    assert server.client().audio.transcriptions.create(**asked).text == own.text
    events = list(server.client().audio.transcriptions.create(**asked, stream=True))
    assert events[-1].type == "transcript.text.done" and events[-1].text == own.text
    assert "".join(event.delta for event in events[:-1]).strip() == own.text
