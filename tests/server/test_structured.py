"""Outputs with a form over HTTP: they have it, whoever asks however; what cannot be compiled disturbs nobody."""

from __future__ import annotations

import json
import re
import threading
from typing import Any, Literal

import jsonschema
import openai
import pydantic
import pytest

from albireo.structured.xgrammar.backend import is_installed
from structured.vocabularies import BACKENDS

XGRAMMAR = pytest.mark.skipif(not is_installed(), reason="xgrammar is not installed")
SCHEMA = {
    "type": "object",
    "properties": {
        "animal": {"enum": ["fox", "owl", "bear"]},
        "friends": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 3},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["animal", "friends", "age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "animal", "strict": True, "schema": SCHEMA}}
MESSAGES = [{"role": "user", "content": "Once upon a time"}]
CHAT: dict[str, Any] = {"model": "story", "messages": MESSAGES, "max_tokens": 480, "temperature": 1.0}
ASK: dict[str, Any] = {"model": "story", "prompt": "Once upon a time", "max_tokens": 200, "temperature": 1.0}


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    return server.client()


def fits(text: str) -> bool:
    jsonschema.validate(json.loads(text), SCHEMA)
    return True


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_fits_its_schema(client: Any, seed: int) -> None:
    whole = client.chat.completions.create(**CHAT, seed=seed, response_format=FORMAT, n=2)
    assert all(choice.finish_reason == "stop" and fits(choice.message.content) for choice in whole.choices)
    texts = ["", ""]
    for chunk in client.chat.completions.create(**CHAT, seed=seed, response_format=FORMAT, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


class Animal(pydantic.BaseModel):
    kind: Literal["fox", "owl"]
    age: int = pydantic.Field(ge=1, le=99)


def test_parse_of_the_openai_client(client: Any) -> None:
    made = client.chat.completions.parse(**CHAT, seed=1, response_format=Animal)
    assert isinstance(made.choices[0].message.parsed, Animal)


def test_any_object(client: Any) -> None:
    found = client.completions.create(**ASK, seed=3, extra_body={"response_format": {"type": "json_object"}})
    (choice,) = found.choices
    assert choice.text.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.text), dict)


def test_an_object_of_a_schema_as_other_servers_have_it(client: Any) -> None:
    form: Any = {"type": "json_object", "schema": SCHEMA}
    made = client.chat.completions.create(**CHAT, seed=1, response_format=form)
    same = client.chat.completions.create(**CHAT, seed=1, response_format=FORMAT)
    assert made.choices[0].message.content == same.choices[0].message.content and fits(same.choices[0].message.content)
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**CHAT, response_format={**form, "schema": 5})
    assert raised.value.param == "response_format"


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"structured_outputs": {"regex": "[a-f]{3,5}"}}, "[a-f]{3,5}"),
        ({"guided_regex": "[a-f]{3,5}"}, "[a-f]{3,5}"),
        ({"structured_outputs": {"choice": ["the fox", "an owl"]}}, "the fox|an owl"),
        ({"guided_choice": ["the fox", "an owl"]}, "the fox|an owl"),
        ({"guided_grammar": 'start: "a" | "b" start'}, "b*a"),
        # as guidance asks servers of any age
        ({"guided_regex": "[a-f]{3,5}", "structured_outputs": {"regex": "[a-f]{3,5}"}}, "[a-f]{3,5}"),
        ({"guided_json": {"type": "integer", "maximum": 99, "minimum": 1}}, r"\d+"),
        ({"guided_json": '{"enum": [1, 2]}', "guided_decoding_backend": "auto"}, "1|2"),
        ({"guided_json": '{"enum": [1, 2]}', "guided_decoding_backend": "guidance"}, "1|2"),
        pytest.param(
            {"guided_regex": "[a-f]{3,5}", "guided_decoding_backend": "xgrammar"}, "[a-f]{3,5}", marks=XGRAMMAR
        ),
        pytest.param({"structured_outputs": {"regex": "[a-f]+", "backend": "xgrammar"}}, "[a-f]+", marks=XGRAMMAR),
    ],
)
def test_forms_by_their_other_names(server: Any, extra: dict[str, Any], pattern: str) -> None:
    ask = {**ASK, **extra, "seed": 4, "min_p": 0.01, "repetition_penalty": 1.05}
    (choice,) = server.http.post("/v1/completions", json=ask).raise_for_status().json()["choices"]
    assert choice["finish_reason"] == "stop" and re.fullmatch(pattern, choice["text"])
    chat = {**CHAT, **extra, "seed": 4}
    (choice,) = server.http.post("/v1/chat/completions", json=chat).raise_for_status().json()["choices"]
    assert choice["finish_reason"] == "stop" and re.fullmatch(pattern, choice["message"]["content"])


DEEP: dict[str, Any] = {}
for _ in range(70):
    DEEP = {"properties": {"a": DEEP}}
BOMBS: list[tuple[dict[str, Any], str]] = [
    ({"guided_regex": "(("}, "guided_regex"),
    ({"guided_regex": "(?=a)b"}, "guided_regex"),
    ({"guided_regex": "a" * 9000}, "guided_regex"),
    ({"guided_grammar": "start: start start"}, "guided_grammar"),
    ({"guided_grammar": "start: ("}, "guided_grammar"),
    ({"structured_outputs": {"json": DEEP}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ({"structured_outputs": {"colour": "red"}}, "structured_outputs"),
    ({"structured_outputs": "a"}, "structured_outputs"),
    ({"guided_json": {"not": {"type": "string"}}}, "guided_json"),
    ({"guided_json": {"$ref": "http://127.0.0.1/x"}}, "guided_json"),
    ({"guided_json": {"enum": ["x" * 50] * 5000}}, "guided_json"),
    ({"guided_json": {"type": "integer"}, "guided_regex": "a"}, "guided_regex"),
    ({"guided_json": {"allOf": [{"type": "string"}, {"type": "integer"}]}}, "guided_json"),
    ({"response_format": {"type": "yaml"}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "wrong"}}}}, "response_format"),
    ({"response_format": 5}, "response_format"),
    ({"guided_whitespace_pattern": "a"}, "guided_whitespace_pattern"),
    ({"guided_decoding_backend": "outlines"}, "guided_decoding_backend"),
    ({"structured_outputs": {"regex": "a", "backend": "outlines"}}, "structured_outputs"),
    (
        {"structured_outputs": {"regex": "a", "backend": "llguidance"}, "guided_decoding_backend": "xgrammar"},
        "guided_decoding_backend",
    ),
    # installed: what it does not keep; else what to install
    ({"guided_json": {"type": "array", "uniqueItems": True}, "guided_decoding_backend": "xgrammar"}, "guided_json"),
    ({"guided_grammar": 'start: "a"', "guided_decoding_backend": "xgrammar"}, "guided_grammar"),
]


@pytest.mark.parametrize(("extra", "param"), BOMBS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_is_a_400_of_its_field(server: Any, extra: dict[str, Any], param: str, stream: bool) -> None:
    got = server.http.post("/v1/completions", json={**ASK, **extra, "stream": stream})
    assert got.status_code == 400, got.text[:300]
    error = got.json()["error"]
    assert error["param"] == param and error["type"] == "invalid_request_error" and error["message"]


def test_a_form_that_grows_too_large_on_its_way_ends_its_own_request(server: Any) -> None:
    ask = {**ASK, "guided_regex": r"(\p{L}{1,2000}){2000}", "seed": 2}
    got = server.http.post("/v1/completions", json=ask)
    assert got.status_code == 400 and got.json()["error"]["param"] == "guided_regex"
    # In a stream a token may have come before: then it is an event.
    told = server.http.post("/v1/completions", json={**ask, "stream": True})
    assert told.status_code == 400 or '"error":{"message":"' in told.text.splitlines()[-4]


def test_the_client_raises_its_own_exception(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.chat.completions.create(**CHAT, response_format={"type": "json_schema", "json_schema": {"schema": DEEP}})


def test_a_stream_goes_on_beside_bombs(server: Any) -> None:
    """Grammars that are refused, or cost much, come one after the other; a stream beside them is what it is alone."""
    ask = {**ASK, "max_tokens": 400, "seed": 1, "ignore_eos": True, "return_token_ids": True}
    alone = server.http.post("/v1/completions", json=ask).json()["choices"][0]["token_ids"]
    is_over = threading.Event()
    statuses: list[int] = []

    def pester() -> None:
        for extra, _ in BOMBS * 20:
            if not (is_over.is_set() and statuses):
                statuses.append(server.http.post("/v1/completions", json={**ASK, **extra}).status_code)

    threads = [threading.Thread(target=pester) for _ in range(2)]
    for thread in threads:
        thread.start()
    ids: list[int] = []
    try:
        with server.http.stream("POST", "/v1/completions", json={**ask, "stream": True}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    ids += [token for choice in json.loads(line[6:])["choices"] for token in choice["token_ids"]]
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert ids == alone and set(statuses) == {400}


def test_a_client_that_leaves_takes_its_grammar_along(server: Any) -> None:
    # Grammars are compiled lazily: what costs only as far as a text gets is no bomb.
    large = {**ASK, "max_tokens": 8, "guided_regex": "(((a{1000}){1000}){1000}){1000}"}
    assert set(server.http.post("/v1/completions", json=large).json()["choices"][0]["text"]) == {"a"}
    slow = {**ASK, "guided_json": {"enum": [f"{i}-word" for i in range(5000)]}}
    for _ in range(5):
        with pytest.raises(Exception, match=r"timed out|Timeout"):
            server.http.post("/v1/completions", json=slow, timeout=0.001)
    assert server.http.post("/v1/completions", json={**ASK, "guided_regex": "a"}).json()["choices"][0]["text"] == "a"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_engine_goes_on_within_the_form(start: Any, killable: Any, backend: str) -> None:
    server = killable if backend == BACKENDS[0] else start("--structured-outputs-backend", backend, is_poisoned=True)
    schema = {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 9, "maxItems": 12}
    ask = {**ASK, "max_tokens": 150, "seed": 5, "frequency_penalty": 0.2}
    extra = {"structured_outputs": {"json": schema}, "return_token_ids": True}
    client = server.client()
    (whole,) = client.completions.create(**ask, extra_body=extra).choices
    for num_steps in (1, 9):
        server.gate.hold(num_steps)
        with client.completions.create(**ask, extra_body=extra, stream=True) as stream:
            server.kill_held()
            server.gate.open()
            chunks = list(stream)
        assert [token for chunk in chunks for token in chunk.choices[0].token_ids] == whole.token_ids
        (prompt,) = server.http.get(f"/v1/requests/{chunks[0].id}/explain").json()["prompts"]
        assert prompt["num_restarts"] == 1
    if whole.finish_reason == "stop":
        jsonschema.validate(json.loads(whole.text), schema)
