"""A model of texts and pictures in one space, over HTTP: /v1/embeddings of either, /score and /rerank of both."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from server_process import Server, lasting
from tiny_pairs import TEXTS, Theirs, pictures, save_pair

IMAGE = pictures()[0]


def data_url() -> str:
    file = io.BytesIO()
    IMAGE.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


PART = {"type": "image_url", "image_url": {"url": data_url()}}


@pytest.fixture(scope="module")
def clip(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Theirs]]:
    folder = save_pair(tmp_path_factory.mktemp("clip"), "clip")
    for server in lasting(ending, str(folder)):
        yield server, Theirs(folder, "clip")


def of_length_1(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_embeddings_of_texts_and_of_pictures(clip: tuple[Server, Theirs]) -> None:
    server, theirs = clip

    def embedded(**body: Any) -> np.ndarray:
        got = server.http.post("/v1/embeddings", json=body)
        assert got.status_code == 200, got.text
        return np.array([each["embedding"] for each in got.json()["data"]])

    said = [text for text in TEXTS if text]
    texts, image = of_length_1(theirs.texts(said)), of_length_1(theirs.pictures([IMAGE]))
    assert np.abs(embedded(input=said) - texts).max() < 1e-5
    assert np.abs(embedded(messages=[{"role": "user", "content": [PART]}]) - image).max() < 1e-5
    assert np.abs(embedded(messages=[{"role": "user", "content": said[0]}]) - texts[:1]).max() < 1e-5
    mixed = [{"role": "user", "content": [PART, {"type": "text", "text": "a cat"}]}]
    got = server.http.post("/v1/embeddings", json={"messages": mixed})
    assert got.status_code == 400 and "a text beside its picture" in got.json()["error"]["message"]


def test_which_text_goes_with_a_picture(clip: tuple[Server, Theirs]) -> None:
    server, theirs = clip
    cosines = (of_length_1(theirs.pictures([IMAGE])) @ of_length_1(theirs.texts(TEXTS)).T)[0]
    content = {"content": [PART]}
    got = server.http.post("/score", json={"data_1": content, "data_2": TEXTS})
    assert got.status_code == 200, got.text
    assert np.abs(np.array([each["score"] for each in got.json()["data"]]) - cosines).max() < 1e-5
    body = {"query": TEXTS[0], "documents": [content, {"text": TEXTS[1]}, TEXTS[3]]}
    found = server.http.post("/rerank", json=body).json()["results"]
    scores = {each["index"]: each["relevance_score"] for each in found}
    assert scores[0] == pytest.approx(cosines[0], abs=1e-5)
    shown = {each["index"]: each["document"] for each in found}
    assert shown == {0: {"multi_modal": [PART]}, 1: {"text": TEXTS[1]}, 2: {"text": TEXTS[3]}}
    for document, words in (({}, "text or content, one of them"), ({"content": [{"type": "file"}]}, "content part")):
        got = server.http.post("/rerank", json={"query": "a", "documents": [document]})
        assert got.status_code == 400 and words in got.json()["error"]["message"], got.text
