"""Videos over HTTP: chats by OpenAI's client; refusals; and an engine that is killed while it answers about one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, SamplingParams
from server.test_images import events
from server_process import Server, lasting
from tiny_films import save_model, video, webp

NUM_TOKENS = 10
GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
DATA_URL = "data:video/webp;base64," + base64.b64encode(webp(8, 50, 30, 4)).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("film"), "qwen3_vl")


@pytest.fixture(scope="module")
def answer(folder: Path) -> str:
    """About the frames, of an engine in this process."""
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        parts = [{"type": "video", "video": video(8, 50, 30, 4, fps=10)}, {"type": "text", "text": "What is it?"}]
        return str(llm.chat([{"role": "user", "content": parts}], GREEDY, use_tqdm=False)[0].outputs[0].text)


@pytest.fixture(scope="module")
def served(ending: ExitStack, folder: Path) -> Iterator[Server]:
    limits = ["--limit-mm-per-prompt", '{"video": 1}', "--max-model-len", "400"]
    named = ["--dtype", "float32", "--served-model-name", "film"]
    yield from lasting(ending, str(folder), *named, *limits, is_poisoned=True)


def asked(*urls: str) -> list[dict[str, Any]]:
    parts = [{"type": "video_url", "video_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


def chat(client: Any, messages: list[dict[str, Any]], **more: Any) -> Any:
    extra = {"ignore_eos": True}
    return client.chat.completions.create(
        model="film", messages=messages, temperature=0, max_tokens=NUM_TOKENS, extra_body=extra, **more
    )


def test_openais_client_asks_about_a_video(served: Server, answer: str) -> None:
    assert chat(served.client(), asked(DATA_URL)).choices[0].message.content == answer
    streamed = [chunk.choices[0].delta.content or "" for chunk in chat(served.client(), asked(DATA_URL), stream=True)]
    assert "".join(streamed) == answer


def test_watchers_learn_of_videos(served: Server) -> None:
    watched = events(served)
    next(watched)
    with ThreadPoolExecutor(1) as asking:
        asking.submit(chat, served.client(), asked(DATA_URL)).result()
    over = next(event["over"] for event in watched if event["over"])
    assert [(request["num_images"], request["num_videos"]) for request in over] == [(0, 1)]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (asked("data:video/mp4;base64,AAAA"), "video 1 of 1: "),
        (asked("data:text/html;base64,AAAA"), "data:video"),
        (asked("http://10.0.0.1/a.mp4"), "allowed-media-domains"),
        (asked("file:///etc/passwd"), "allowed-local-media-path"),
        (asked(DATA_URL, DATA_URL), "limit_mm_per_prompt allows 1"),
        ([{"role": "user", "content": [{"type": "video_url"}]}], "without video_url"),
    ],
)
def test_refusals_say_what_is_wrong(served: Server, messages: Any, words: str) -> None:
    got = served.http.post("/v1/chat/completions", json={"model": "film", "messages": messages})
    assert got.status_code == 400
    error = got.json()["error"]
    assert words in error["message"] and error["param"] == "messages"


def test_nobody_notices_that_the_engine_was_killed(served: Server, answer: str) -> None:
    served.gate.hold(4)
    with ThreadPoolExecutor(1) as asking:
        got = asking.submit(chat, served.client(), asked(DATA_URL))
        served.kill_held()
        served.gate.open()
        assert got.result().choices[0].message.content == answer
