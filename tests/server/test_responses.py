"""The real openai client against /v1/responses: whole, streamed, in the background, stored."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from albireo.server.errors import HttpError
from albireo.server.protocol.responses import ResponseAnswer
from albireo.server.response_log import BYTES_PER_EVENT, Entry, ResponseLog
from albireo.server.response_store import MAX_KEPT, ResponseStore, Stored
from server_process import wait_until

ASK: dict[str, Any] = {"model": "story", "input": "Once upon a time", "temperature": 0, "max_output_tokens": 12}


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    return server.client()


def chat(client: Any, *messages: tuple[str, str], **extra: Any) -> Any:
    given = [{"role": role, "content": content} for role, content in messages]
    return client.chat.completions.create(model="story", messages=given, temperature=0, max_tokens=12, **extra)


def test_it_answers_as_a_chat_does(client: Any) -> None:
    got = client.responses.create(**ASK)
    wanted = chat(client, ("user", ASK["input"]))
    assert got.output_text == wanted.choices[0].message.content
    assert (got.status, got.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (got.usage.input_tokens, got.usage.output_tokens) == (wanted.usage.prompt_tokens, 12)
    assert got.usage.total_tokens == wanted.usage.total_tokens


def test_tokens_are_counted_before_it_is_asked(client: Any, server: Any) -> None:
    ask = {"model": "story", "input": "Once upon a time", "instructions": "Be brief."}
    made = client.responses.create(**ask, max_output_tokens=3)
    counted = client.responses.input_tokens.count(**ask)
    assert (counted.input_tokens, counted.object) == (made.usage.input_tokens, "response.input_tokens")
    more = {"model": "story", "input": "And then?", "previous_response_id": made.id}
    wanted = client.responses.create(**more, max_output_tokens=3).usage.input_tokens
    assert client.responses.input_tokens.count(**more).input_tokens == wanted > counted.input_tokens
    # of what does not fit, too: who counts wants to know by how much
    assert client.responses.input_tokens.count(model="story", input="cat " * 1000).input_tokens > 1000
    with pytest.raises(openai.NotFoundError, match="model 'other' does not exist"):
        client.responses.input_tokens.count(model="other", input="x")
    with pytest.raises(openai.BadRequestError, match="input"):
        client.responses.input_tokens.count(model="story", input=5)


def test_penalties_are_those_of_a_chat(client: Any) -> None:
    penalties = {"presence_penalty": 1.5, "frequency_penalty": 1.0}
    got = client.responses.create(**{**ASK, "max_output_tokens": 40}, extra_body=penalties, max_tool_calls=3)
    wanted = chat(client, ("user", ASK["input"]), extra_body={"max_tokens": 40}, **penalties)
    plain = client.responses.create(**{**ASK, "max_output_tokens": 40})
    assert got.output_text == wanted.choices[0].message.content != plain.output_text
    for field, value in (("frequency_penalty", 3), ("max_tool_calls", 0)):
        with pytest.raises(openai.BadRequestError) as raised:
            client.responses.create(**ASK, extra_body={field: value})
        assert raised.value.param == field


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"regex": "[a-d]{4}"}},
        {"logit_bias": {"50": 100}},
        {"bad_words": ["a"]},
        {"stop": ["girl"], "include_stop_str_in_output": True},
        {"stop_token_ids": [50], "logit_bias": {"50": 100}, "min_tokens": 5},
    ],
    ids=str,
)
def test_what_shapes_the_text_is_as_in_chats(client: Any, fields: dict[str, Any]) -> None:
    got = client.responses.create(**ASK, extra_body=fields)
    wanted = chat(client, ("user", ASK["input"]), extra_body=fields)
    assert got.output_text == wanted.choices[0].message.content != client.responses.create(**ASK).output_text
    assert got.usage.output_tokens == wanted.usage.completion_tokens


def test_a_form_is_asked_for_once(client: Any) -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "boolean"}}
    with pytest.raises(openai.BadRequestError, match="ask for a form each"):
        client.responses.create(**ASK, text={"format": form}, extra_body={"structured_outputs": {"regex": "a"}})


def test_instructions_and_messages(client: Any) -> None:
    parts = [{"type": "input_text", "text": "Once"}, {"type": "input_text", "text": "upon"}]
    items = [
        {"role": "user", "content": parts},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": " a time"}]},
        {"role": "user", "content": "there"},
    ]
    got = client.responses.create(**{**ASK, "input": items}, instructions="A story.")
    wanted = chat(client, ("system", "A story."), ("user", "Once\nupon"), ("assistant", " a time"), ("user", "there"))
    assert got.output_text == wanted.choices[0].message.content
    assert got.instructions == "A story."


def test_what_was_refused_before_is_text(client: Any) -> None:
    refused = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": " a time"}]}
    items = [{"role": "user", "content": "Once upon"}, refused, {"role": "user", "content": "there"}]
    wanted = chat(client, ("user", "Once upon"), ("assistant", " a time"), ("user", "there"))
    assert client.responses.create(**{**ASK, "input": items}).output_text == wanted.choices[0].message.content


def test_a_stream_adds_up(client: Any) -> None:
    whole = client.responses.create(**ASK)
    found = list(client.responses.create(**ASK, stream=True))
    kinds = [event.type for event in found]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert "".join(event.delta for event in found[4:-4]) == whole.output_text == found[-4].text
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert found[-1].response.usage.output_tokens == 12
    with client.responses.stream(**ASK) as stream:
        assert list(dict.fromkeys(event.type for event in stream)) == list(dict.fromkeys(kinds))


def test_what_is_stored_can_be_asked_for_and_gone_on_with(client: Any) -> None:
    first = client.responses.create(**ASK)
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(**{**ASK, "input": "Then"}, previous_response_id=first.id)
    wanted = chat(client, ("user", ASK["input"]), ("assistant", first.output_text), ("user", "Then"))
    assert second.output_text == wanted.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="created with background"):
        client.responses.cancel(first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    forgotten = client.responses.create(**ASK, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(forgotten.id)


def test_an_item_is_referred_to_by_its_id(client: Any) -> None:
    first = client.responses.create(**ASK)
    begun = {"role": "user", "content": ASK["input"]}
    wanted = chat(client, ("user", ASK["input"]), ("assistant", first.output_text), ("user", "Then"))
    for reference in ({"type": "item_reference", "id": first.output[0].id}, {"id": first.output[0].id}):
        items = [begun, reference, {"role": "user", "content": "Then"}]
        assert client.responses.create(**{**ASK, "input": items}).output_text == wanted.choices[0].message.content
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="give the item itself"):
        client.responses.create(**{**ASK, "input": items})


def test_the_oldest_turns_give_way_where_all_do_not_fit(client: Any) -> None:
    """As few of them as leave the room that is asked for; instructions stay, and so do calls with their results."""
    turns = [
        [{"role": "user", "content": f"{name} " + "went home. " * 40}, {"role": "assistant", "content": " So it was."}]
        for name in ("Tom", "Lily", "Ben", "Anna", "Sam")
    ]
    items = [*(each for turn in turns for each in turn), {"role": "user", "content": "Then"}]
    ask = {**ASK, "input": items, "instructions": "A story."}
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(**ask)
    assert raised.value.code == "context_length_exceeded"
    got = client.responses.create(**ask, truncation="auto")
    fitting = []
    for num in range(1, 6):
        try:
            made = client.responses.create(**{**ask, "input": items[2 * num :]})
        except openai.BadRequestError:
            assert not fitting
            continue
        if made.usage.input_tokens + ASK["max_output_tokens"] <= 512:
            fitting.append(made)
    assert 1 < len(fitting) < 5 and got.truncation == "auto"
    assert (got.output_text, got.usage.input_tokens) == (fitting[0].output_text, fitting[0].usage.input_tokens)
    again = client.responses.create(**{**ASK, "input": "And"}, previous_response_id=got.id, truncation="auto")
    assert again.usage.input_tokens < 512


def test_in_the_background(client: Any) -> None:
    got = client.responses.create(**ASK, background=True)
    assert got.status in ("queued", "in_progress") and got.output == []
    done = wait_until(
        lambda: r if (r := client.responses.retrieve(got.id)).status not in ("queued", "in_progress") else None
    )
    assert done.output_text == client.responses.create(**ASK).output_text
    assert client.responses.cancel(got.id).status == "incomplete"


def test_one_that_is_cancelled_frees_what_it_held(client: Any, server: Any) -> None:
    ask = {**ASK, "max_output_tokens": 490}
    for asks_at_once in (True, False):
        made = client.responses.create(**ask, background=True, extra_body={"ignore_eos": True})
        if not asks_at_once:
            wait_until(lambda made=made: client.responses.retrieve(made.id).status != "queued")
        assert client.responses.cancel(made.id).status in ("cancelled", "incomplete")
        assert client.responses.retrieve(made.id).status in ("cancelled", "incomplete")
    wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 0)


def test_neutral_values_ask_for_nothing(server: Any) -> None:
    neutral = {
        "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "include": [], "truncation": "disabled",
        "top_logprobs": 0, "service_tier": "auto", "text": {"format": {"type": "text"}}, "reasoning": {"effort": None},
        "stream": False, "store": None, "background": False, "metadata": {}, "user": "me", "some_new_field": None,
        "stream_options": None, "conversation": None, "prompt": None, "client_metadata": {"x-session": "1"},
    }  # fmt: skip
    assert server.http.post("/v1/responses", json={**ASK, **neutral}).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"include": ["web_search_call.action.sources"]}, "include"),
        ({"truncation": "middle"}, "truncation"),
        ({"truncation": "auto", "input": "very " * 600}, "input"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"some_new_field": 1}, "some_new_field"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 2**63}, "max_output_tokens"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"input": []}, "input"),
        ({"input": "very " * 600}, "input"),
        ({"input": [{"type": "item_reference", "id": 5}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input"),
        ({"temperature": -1}, "temperature"),
        ({"background": True, "store": False}, "background"),
        ({"conversation": 3}, "conversation"),
    ],
)
def test_what_cannot_be_done_is_a_400_that_names_the_field(client: Any, change: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.post("/responses", body={**ASK, **change}, cast_to=object)
    assert raised.value.param == param


def stored(name: str, text: str = "", is_running: bool = False, num_events: int = 0) -> Stored:
    answer = ResponseAnswer(
        id=name, created_at=0, model="m", status="completed", background=False, store=True, max_output_tokens=None,
        temperature=1, top_p=1, text={}, reasoning={}, metadata={}, instructions=None, previous_response_id=None,
    )  # fmt: skip
    task: Any = object() if is_running else None
    writer: Any = SimpleNamespace(answer=answer, log=ResponseLog())
    for _ in range(num_events):
        writer.log.add(Entry("more"))
    return Stored(writer, [{"role": "user", "content": text}], task)


def test_the_store_is_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albireo.server.response_store.MAX_CHARS", max_chars := 1_000_000)
    store = ResponseStore()
    store.put(stored("running", is_running=True))
    for i in range(MAX_KEPT):
        store.put(stored(f"r{i}"))
    with pytest.raises(HttpError):
        store.get("r0")
    assert store.get("r1") and store.get("running")
    big = "x" * (max_chars // 2)
    for i in range(3):
        store.put(stored(f"big{i}", big))
    assert store.get("big2") and store.get("running")
    for name in ("big0", "big1", f"r{MAX_KEPT - 1}"):
        with pytest.raises(HttpError):
            store.get(name)
    store.drop("big2")
    store.put(stored("big3", big))
    assert store.get("big3")
    # Events are kept as well, and count.
    for i in range(3):
        store.put(stored(f"long{i}", num_events=max_chars // BYTES_PER_EVENT // 2))
    with pytest.raises(HttpError):
        store.get("big3")


def _file(raw: bytes, media: str = "text/plain", **beside: Any) -> dict[str, Any]:
    data = f"data:{media};base64,{base64.b64encode(raw).decode()}"
    content = [{"type": "input_file", "file_data": data, **beside}, {"type": "input_text", "text": "What is it?"}]
    return {"input": [{"role": "user", "content": content}], "max_output_tokens": 4, "temperature": 0}


def test_a_file_of_text_is_what_it_says_behind_its_name(server: Any) -> None:
    said = {"input": "fox.md\nA f\u00f6x ran.\nWhat is it?"}
    for raw in ("A f\u00f6x ran.".encode(), "\ufeffA f\u00f6x ran.".encode()):
        ask = _file(raw, "text/markdown", filename="fox.md")
        counted = [server.http.post("/v1/responses/input_tokens", json=each).json() for each in (ask, said)]
        assert counted[0] == counted[1]
    answer = server.http.post("/v1/responses", json=_file(b"A fox", filename=None)).json()
    assert answer["status"] == "incomplete" and answer["usage"]["output_tokens"] == 4


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (_file(b"%PDF-1.7"), "is a PDF"),
        (_file(b"x", "application/pdf"), "is a PDF"),
        (_file(b"\xff\xfe\x00", "application/zip"), "application/zip' that is no text"),
        (_file(b"a\x00b"), "no text in UTF-8"),
        (_file(b"", file_data="data:text/plain;base64,!!"), "no base64"),
        (_file(b"", file_data="data:text/plain,abc"), "data:TYPE;base64"),
        (_file(b"", file_data=None), "needs file_data"),
        (_file(b"x", filename=3), "filename=3"),
        (_file(b"x", file_id="file-1"), "has file_id"),
        (_file(b"x", file_url="http://127.0.0.1/x"), "has file_url"),
    ],
)
def test_a_file_that_is_no_text_is_refused(server: Any, ask: dict[str, Any], said: str) -> None:
    answer = server.http.post("/v1/responses", json=ask)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"], answer.text
