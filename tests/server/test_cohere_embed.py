"""Cohere's /v2/embed. Its client is tried by `make clients`."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.server.errors import HttpError
from albireo.server.packing import signs
from server_process import Server

TEXTS = ["Once upon a time", "a fox"]


def post(server: Any, **ask: Any) -> dict[str, Any]:
    got = server.http.post("/v2/embed", json={"model": "story", **ask})
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


def refusal(server: Any, **ask: Any) -> tuple[str, str]:
    got = server.http.post("/v2/embed", json={"model": "story", **ask})
    assert got.status_code == 400, got.text
    error = got.json()["error"]
    return error["param"], error["message"]


def plain(server: Any, **ask: Any) -> np.ndarray[Any, Any]:
    data = server.http.post("/v1/embeddings", json={"model": "story", **ask}).json()["data"]
    return np.array([each["embedding"] for each in data], np.float32)


def test_embeddings_by_type_are_those_of_the_other_route(server: Server) -> None:
    wanted = plain(server, input=TEXTS)
    kinds = ["float", "base64", "binary", "ubinary"]
    got = post(server, texts=TEXTS, input_type="search_query", embedding_types=kinds)
    told = got["embeddings"]
    assert np.array_equal(np.array(told["float"], np.float32), wanted) and got["texts"] == TEXTS
    assert [base64.b64decode(each) for each in told["base64"]] == [row.tobytes() for row in wanted]
    assert np.array_equal(told["ubinary"], np.packbits(wanted >= 0, axis=1))
    assert np.array_equal(np.array(told["binary"]) + 128, told["ubinary"])
    assert got["response_type"] == "embeddings_by_type" and got["meta"]["billed_units"]["input_tokens"] > 4
    parts = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    assert list(post(server, inputs=parts)["embeddings"]) == ["float"]
    assert post(server, inputs=parts)["embeddings"]["float"] == told["float"]


def test_longer_texts_are_cut_where_it_says(server: Server) -> None:
    long = "a cat sat. " * 300
    for ask, same in (
        ({}, {"truncate_prompt_tokens": -1}),
        ({"max_tokens": 8}, {"truncate_prompt_tokens": 8}),
        ({"max_tokens": 8, "truncate": "START"}, {"truncate_prompt_tokens": 8, "truncation_side": "left"}),
        ({"output_dimension": 8}, {"truncate_prompt_tokens": -1, "dimensions": 8}),
    ):
        got = post(server, texts=[long], **ask)["embeddings"]["float"]
        assert np.array_equal(np.array(got, np.float32), plain(server, input=[long], **same)), ask
    assert refusal(server, texts=[long], truncate="NONE")[0] == "texts"


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        ({}, "texts"),
        ({"texts": ["a"], "inputs": [{"content": [{"type": "text", "text": "a"}]}]}, "texts"),
        ({"texts": ["a"], "embedding_types": ["int8"]}, "embedding_types"),
        ({"texts": ["a"], "input_type": "poem"}, "input_type"),
        ({"texts": ["a"], "images": ["data:,"]}, "images"),
        ({"texts": ["a"], "output_dimension": 10**6}, "output_dimension"),
        ({"texts": ["a"], "output_dimension": 9, "embedding_types": ["binary"]}, "embedding_types"),
        ({"texts": ["a", ""]}, "texts"),
    ],
)
def test_what_is_not_done_is_refused(server: Server, ask: dict[str, Any], param: str) -> None:
    assert refusal(server, **ask)[0] == param


def test_words_of_the_model_stand_in_front(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "story"
    shutil.copytree(BUNDLED, folder)
    prompts = {"prompts": {"query": "Find: ", "passage": "Text: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    server = start(str(folder))
    for use, words in (("search_query", "Find: "), ("search_document", "Text: "), ("passage", "Text: ")):
        got = post(server, texts=TEXTS, input_type=use)
        assert np.array_equal(
            np.array(got["embeddings"]["float"], np.float32), plain(server, input=[words + text for text in TEXTS])
        )
        assert got["texts"] == TEXTS
    param, words = refusal(server, texts=TEXTS, input_type="clustering")
    assert param == "input_type" and "there are passage, query" in words


def test_bits_of_signs() -> None:
    raw = np.array([1, -1, 0, -0.5, 2, 3, -4, -5, -1, 1, -1, -1, -1, -1, -1, -1], np.float32).tobytes()
    assert signs(raw, is_signed=False) == [0b10101100, 0b01000000]
    assert signs(raw, is_signed=True) == [0b10101100 - 128, 0b01000000 - 128]
    with pytest.raises(HttpError, match="multiple of 8 values"):
        signs(raw[:36], is_signed=False)
