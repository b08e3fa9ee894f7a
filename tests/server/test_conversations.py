"""Conversations that are kept, with OpenAI's client and by hand."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from albireo.server import conversation_store
from albireo.server.conversation_store import ConversationStore
from albireo.server.endpoints.responses import Responses
from albireo.server.errors import HttpError
from albireo.server.response_store import ResponseStore, Stored
from server_process import Server

ASK: dict[str, Any] = {"max_output_tokens": 8, "temperature": 0}
BEGIN = {"type": "message", "role": "user", "content": "A fox"}


def test_responses_go_on_with_a_conversation(server: Server) -> None:
    """What is said is what one request with all of it says."""
    client = server.client()
    made = client.conversations.create(items=[BEGIN], metadata={"topic": "foxes"})
    assert (made.object, made.metadata) == ("conversation", {"topic": "foxes"})
    first = client.responses.create(model="story", input="and a cat", conversation=made.id, **ASK)
    assert first.conversation is not None and first.conversation.id == made.id
    second = client.responses.create(model="story", input="ran", conversation={"id": made.id}, store=False, **ASK)
    items = list(client.conversations.items.list(made.id, order="asc", limit=2))
    assert [each.role for each in items] == ["user", "user", "assistant", "user", "assistant"]
    assert items[2].id == first.output[0].id and items[4].content[0].text == second.output_text
    given = [
        BEGIN,
        {"role": "user", "content": "and a cat"},
        first.output[0].to_dict(),
        {"role": "user", "content": "ran"},
    ]
    whole = client.responses.create(model="story", input=given, **ASK)
    assert whole.output_text == second.output_text and "conversation" not in whole.to_dict()
    # the newest comes first unless it is said
    newest = client.conversations.items.list(made.id, limit=2)
    assert [each.id for each in newest.data] == [items[4].id, items[3].id] and newest.has_more
    assert client.conversations.items.retrieve(items[0].id, conversation_id=made.id).content[0].text == "A fox"


def test_one_in_the_background_and_a_stream_are_noted_once(server: Server) -> None:
    client = server.client()
    made = client.conversations.create()
    with client.responses.create(model="story", input="a", conversation=made.id, stream=True, **ASK) as events:
        assert [event.type for event in events][-1] in ("response.completed", "response.incomplete")
    asked = client.responses.create(model="story", input="b", conversation=made.id, background=True, **ASK)
    while client.responses.retrieve(asked.id).status in ("queued", "in_progress"):
        pass
    told = [
        each.content[0].text for each in client.conversations.items.list(made.id, order="asc") if each.role == "user"
    ]
    assert told == ["a", "b"]


def test_items_and_metadata_change(server: Server) -> None:
    client = server.client()
    made = client.conversations.create()
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "3"}
    added = client.conversations.items.create(made.id, items=[BEGIN, call, result])
    assert [each.type for each in added.data] == ["message", "function_call", "function_call_output"]
    assert added.first_id == added.data[0].id and added.data[1].id.startswith("fc_")
    assert client.conversations.items.delete(added.data[1].id, conversation_id=made.id).id == made.id
    assert len(client.conversations.items.list(made.id).data) == 2
    assert client.conversations.update(made.id, metadata={"a": "b"}).metadata == {"a": "b"}
    assert client.conversations.retrieve(made.id).metadata == {"a": "b"}
    assert client.conversations.delete(made.id).deleted
    gone = server.http.get(f"/v1/conversations/{made.id}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "conversation_not_found")
    asked = server.http.post("/v1/responses", json={"input": "x", "conversation": made.id})
    assert (asked.status_code, asked.json()["error"]["param"]) == (404, "conversation")


@pytest.mark.parametrize(
    ("path", "ask", "param"),
    [
        ("/v1/conversations", {"items": [{"role": "nobody", "content": "x"}]}, "input"),
        ("/v1/conversations", {"items": "x"}, "items"),
        ("/v1/conversations", {"metadata": {"a": 1}}, "metadata"),
        ("/v1/conversations", {"metadata": {"a": "x" * 513}}, "metadata"),
        ("/v1/conversations", {"metadata": {"x" * 65: "a"}}, None),
        ("/v1/conversations/{id}", {"metadata": {str(place): "" for place in range(17)}}, "metadata"),
        ("/v1/conversations", {"name": "x"}, "name"),
        ("/v1/conversations/{id}/items", {"items": []}, "items"),
        ("/v1/conversations/{id}/items", {"items": [{"type": "web_search_call"}]}, "input"),
        ("/v1/conversations/{id}", {}, "metadata"),
        ("/v1/responses", {"input": "x", "conversation": {"name": "x"}}, "conversation.name"),
        ("/v1/responses", {"input": "x", "conversation": "{id}", "previous_response_id": "resp_1"}, "conversation"),
    ],
)
def test_what_is_none_is_refused(server: Server, path: str, ask: dict[str, Any], param: str | None) -> None:
    name = server.http.post("/v1/conversations").json()["id"]
    ask = {key: name if value == "{id}" else value for key, value in ask.items()}
    answer = server.http.post(path.format(id=name), json=ask)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert server.http.get(f"/v1/conversations/{name}/items").json()["data"] == []


def test_pages_are_asked_for_rightly(server: Server) -> None:
    name = server.http.post("/v1/conversations").json()["id"]
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=nobody", "before=x"):
        answer = server.http.get(f"/v1/conversations/{name}/items?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_those_used_last_are_kept_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_store, "MAX_KEPT", 3)
    monkeypatch.setattr(conversation_store, "MAX_BYTES", 1600)
    store = ConversationStore()
    a, b, c = (store.make([BEGIN], {}) for _ in range(3))
    store.get(a.id)
    d = store.make([], {})
    with pytest.raises(HttpError, match="kept no more"):
        store.get(b.id)
    assert store.get(a.id) is a and store.get(c.id) is c
    long = {"role": "user", "content": "x" * 900}
    store.add(d, [long])
    with pytest.raises(HttpError, match="is not kept"):
        store.add(d, [long])
    assert len(d.items) == 1
    with pytest.raises(HttpError, match="kept no more"):
        store.get(a.id)
    store.drop_item(d, 0)
    store.drop(c.id)
    assert d.num_bytes == 0 and store._num_bytes == 0 and store.add(c, [BEGIN]) == []


def test_bytes_are_counted_as_they_are_kept() -> None:
    """Of many small objects in an item, and of many small items."""
    for items in ([BEGIN] * 2000, [{**BEGIN, "told": [[] for _ in range(200_000)]}]):
        store = ConversationStore()
        made = store.make([], {})
        gc.collect()
        tracemalloc.start()
        try:
            store.add(made, items)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 0.5 * made.num_bytes < taken < 1.5 * made.num_bytes


def test_each_item_has_an_id_of_its_own(server: Server) -> None:
    """Who asks for pages asks for what is behind the last item: with two of one id, without end."""
    given = [{**BEGIN, "id": name} for name in ("msg_1", "", 5, None, "msg_1", "msg_2")]
    made = server.http.post("/v1/conversations", json={"items": given}).json()["id"]
    server.http.post(f"/v1/conversations/{made}/items", json={"items": given[:1]})
    client = server.client()
    names = [each.id for each in islice(client.conversations.items.list(made, order="asc", limit=1), 20)]
    assert len(names) == len(set(names)) == 7 and (names[0], names[5]) == ("msg_1", "msg_2")
    for name in names:
        assert client.conversations.items.retrieve(name, conversation_id=made).id == name


def test_what_is_stored_of_a_response_keeps_no_conversation() -> None:
    """It may be kept longer than the conversation, and counts no more than its texts."""
    store = ResponseStore()
    endpoint = Responses(SimpleNamespace(), store)  # type: ignore[arg-type]
    for status, num in (("completed", 2), ("failed", 1)):
        made = store.conversations.make([BEGIN], {})
        writer = SimpleNamespace(answer=SimpleNamespace(status=status, output=[]))
        stored = Stored(writer, [], conversation=made, items=[BEGIN])  # type: ignore[arg-type]
        endpoint._note(stored)
        assert (stored.conversation, stored.items, len(made.items)) == (None, [], num)
