"""Streams of /v1/responses taken up again, with the real client: stored, in the background, killed, cancelled."""

from __future__ import annotations

import signal
import threading
from typing import Any

import openai
import pytest

from server_process import wait_until

ASK: dict[str, Any] = {"model": "story", "input": "Once upon a time", "temperature": 0, "max_output_tokens": 40}
LONG: dict[str, Any] = {**ASK, "max_output_tokens": 480, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    return server.client()


def follow(client: Any, name: str, **after: int) -> list[Any]:
    return list(client.responses.retrieve(name, stream=True, **after))


def plain(events: list[Any]) -> list[dict[str, Any]]:
    return [event.model_dump() for event in events]


def test_a_stored_stream_is_told_again_from_any_number_on(client: Any) -> None:
    first = list(client.responses.create(**ASK, stream=True))
    name = first[0].response.id
    assert plain(follow(client, name)) == plain(first)
    for number in (0, 1, 7, len(first) - 2, len(first) - 1):
        assert plain(follow(client, name, starting_after=number)) == plain(first[number + 1 :])
    whole = client.responses.retrieve(name)
    assert whole.output_text == first[-1].response.output_text


def test_one_that_was_not_streamed_has_events_all_the_same(client: Any) -> None:
    for background in (False, True):
        made = client.responses.create(**ASK, background=background)
        found = follow(client, made.id)
        kinds = list(dict.fromkeys(event.type for event in found))
        assert kinds[0] == "response.created" and kinds[-1] == "response.incomplete"
        assert ("response.queued" in kinds) == background
        assert [event.sequence_number for event in found] == list(range(len(found)))
        text = "".join(event.delta for event in found if event.type == "response.output_text.delta")
        assert text == found[-1].response.output_text == client.responses.retrieve(made.id).output_text != ""


def test_one_in_the_background_goes_on_when_its_reader_leaves(client: Any) -> None:
    seen = []
    with client.responses.create(**LONG, background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if len(seen) == 9:
                break
    assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [event.response.status for event in seen[:3]] == ["queued", "queued", "in_progress"]
    name = seen[0].response.id
    rest = follow(client, name, starting_after=8)
    numbers = [event.sequence_number for event in [*seen, *rest]]
    assert numbers == list(range(len(numbers))) and rest[-1].type == "response.incomplete"
    assert rest[-1].response.usage.output_tokens == 480
    text = "".join(event.delta for event in [*seen, *rest] if event.type == "response.output_text.delta")
    assert text == client.responses.create(**LONG).output_text
    assert plain(follow(client, name)) == plain([*seen, *rest])


def test_several_follow_one(client: Any) -> None:
    made = client.responses.create(**LONG, background=True)
    found: list[list[dict[str, Any]]] = [[], [], []]

    def read(k: int) -> None:
        found[k] = plain(follow(client, made.id, starting_after=k % 2))

    threads = [threading.Thread(target=read, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = plain(follow(client, made.id))
    assert found == [whole[1:], whole[2:], whole[1:]] and len(whole) > 9


def test_it_goes_on_when_the_engine_was_killed(killable: Any) -> None:
    server, before = killable, killable.num_restarts()
    client = server.client()
    expected = client.responses.create(**LONG).output_text
    server.gate.hold(20)
    seen = []
    with client.responses.create(**LONG, background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    server.kill_held()
    server.gate.open()
    seen += follow(client, seen[0].response.id, starting_after=seen[-1].sequence_number)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == expected
    assert server.num_restarts() == before + 1


def test_a_follower_learns_that_it_was_cancelled(client: Any, server: Any) -> None:
    with client.responses.create(**LONG, background=True, stream=True) as stream:
        first = next(stream)
        client.responses.cancel(first.response.id)
        kinds = [event.type for event in stream]
    assert kinds[-1] in ("response.cancelled", "response.incomplete")
    assert [event.type for event in follow(client, first.response.id)][1:] == kinds
    wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 0)


def test_followers_are_told_when_the_server_ends(start: Any) -> None:
    server = start("--shutdown-timeout", "0")
    asked = {**LONG, "extra_body": {"ignore_eos": True, "repetition_penalty": 1.2}}
    with server.client().responses.create(**asked, background=True, stream=True) as stream:
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        kinds = [event.type for event in stream]
    assert kinds[-1] in ("response.failed", "response.incomplete")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=maybe", "stream"),
        ("starting_after=3", "starting_after"),
        *(
            (f"stream=true&starting_after={value}", "starting_after")
            for value in ("-1", "x", "1.5", "", "NaN", "9" * 40)
        ),
        *(
            (f"stream=true&starting_after={value}", "starting_after")
            for value in ("-1", "x", "1.5", "", "NaN", "9" * 40, 2**31, 10**17, "²")
        ),
    ],
)
def test_what_is_no_event_is_a_400(client: Any, server: Any, query: str, param: str) -> None:
    made = client.responses.create(**{**ASK, "max_output_tokens": 2})
    got = server.http.get(f"/v1/responses/{made.id}?{query}")
    assert (got.status_code, got.json()["error"]["param"]) == (400, param), got.text
    assert server.http.head(f"/v1/responses/{made.id}?stream=true").status_code == 200


def test_what_is_not_stored_cannot_be_followed(client: Any) -> None:
    made = client.responses.create(**ASK, store=False)
    with pytest.raises(openai.NotFoundError):
        follow(client, made.id)
