"""A gap is filled by a model whose tokenizer has marks for it: `suffix` of completions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from filler import save_filler
from server_process import Server

MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>")
ASK: dict[str, Any] = {"model": "filler", "prompt": "The cat", "max_tokens": 8, "temperature": 0}
SUFFIX = " and was happy."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_filler(tmp_path_factory.mktemp("models") / "filler", MARKS)


@pytest.fixture(scope="module")
def filler(folder: Path) -> Iterator[Server]:
    made = Server(str(folder), "--served-model-name", "filler").wait_until_ready()
    yield made
    made.stop()


def test_the_prompt_is_what_is_round_the_gap(filler: Server, folder: Path) -> None:
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    client = filler.client()
    text = f"<|fim_prefix|>The cat<|fim_suffix|>{SUFFIX}<|fim_middle|>"
    made = client.completions.create(**ASK, suffix=SUFFIX, extra_body={"return_token_ids": True})
    (choice,) = made.choices
    assert choice.prompt_token_ids == theirs(text).input_ids and made.usage.prompt_tokens == len(theirs(text).input_ids)
    assert theirs.convert_tokens_to_ids(list(MARKS)) == [4092, 4093, 4094, 4095]
    plain = client.completions.create(**{**ASK, "prompt": text})
    assert choice.text == plain.choices[0].text != client.completions.create(**ASK).choices[0].text
    chunks = client.completions.create(**ASK, suffix=SUFFIX, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text
    two = client.completions.create(**{**ASK, "prompt": ["The cat", "A dog"]}, suffix=SUFFIX)
    assert two.choices[0].text == choice.text and len(two.choices) == 2
    nothing = client.completions.create(**ASK, suffix="")
    assert nothing.choices[0].text == client.completions.create(**ASK).choices[0].text


def test_ollamas_client_fills_it_likewise(filler: Server) -> None:
    choice = filler.client().completions.create(**ASK, suffix=SUFFIX).choices[0]
    ask = {"prompt": ASK["prompt"], "suffix": SUFFIX, "options": {"temperature": 0, "num_predict": ASK["max_tokens"]}}
    assert filler.http.post("/api/generate", json={**ask, "stream": False}).json()["response"] == choice.text
    assert "insert" in filler.http.post("/api/show", json={"model": "filler"}).json()["capabilities"]


def test_a_mark_ends_what_fills_the_gap(filler: Server) -> None:
    client = filler.client()
    wants_pad = {"logit_bias": {"4095": 100}}
    made = client.completions.create(**ASK, suffix=SUFFIX, extra_body=wants_pad)
    assert (made.choices[0].finish_reason, made.choices[0].text) == ("stop", "")
    for more in ({"ignore_eos": True}, {"suffix": ""}):
        on = client.completions.create(**{**ASK, "suffix": SUFFIX}, extra_body={**wants_pad, **more})
        assert on.choices[0].finish_reason == "length" and on.usage.completion_tokens == 8
    own = client.completions.create(
        **ASK, suffix=SUFFIX, extra_body={"logit_bias": {"50": 100}, "stop_token_ids": [50]}
    )
    assert own.choices[0].finish_reason == "stop", "those of the request hold, too"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": [5, 6]}, "needs a prompt that is a text"),
        ({"echo": True}, "suffix and echo exclude each other"),
        ({"truncate_prompt_tokens": 9}, "suffix and truncate_prompt_tokens exclude each other"),
        ({"suffix": 5}, "suffix"),
    ],
)
def test_what_does_not_go_with_it(filler: Server, change: dict[str, Any], words: str) -> None:
    got = filler.http.post("/v1/completions", json={**ASK, "suffix": SUFFIX, **change})
    assert got.status_code == 400 and got.json()["error"]["param"] == "suffix" and words in got.text


def test_a_model_without_marks_says_so(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="no known marks for it; leave it out") as raised:
        server.client().completions.create(model="story", prompt="a", suffix="b")
    assert raised.value.param == "suffix"
