"""What is sent, and how answers are read, over a real connection; the clock goes when the server says so."""

from __future__ import annotations

import asyncio
import json

import pytest

from albireo.bench.serving.client import Client, Server
from albireo.bench.serving.request import ServeRequest
from albireo.errors import ConfigError, ResourceError
from stub_completions import Answer, StubServer, completion, event, text_chunk, usage_chunk

REQUEST = ServeRequest("Once upon", 2, 5)


class StepClock:
    """Stands still until the server sets it, before each chunk; a chunk follows when the one before was read."""

    def __init__(self, *moments: float) -> None:
        self._moments, self._now, self._was_read = moments, 100.0, asyncio.Event()

    def __call__(self) -> float:
        self._was_read.set()
        return self._now

    async def pace(self, i: int) -> None:
        if i:
            await self._was_read.wait()
        self._was_read.clear()
        self._now = self._moments[i]


def send(answer, request=REQUEST, clock=None, body=None, **server):
    """One request to a server that gives this answer; the outcome and what was asked."""

    async def run():
        async with StubServer(lambda _: answer) as stub:
            target = Server(base_url=stub.url, **server)
            async with Client(target, body or {}, clock or (lambda: 100.0)) as client:
                return await asyncio.wait_for(client.send("m", request, "r-1"), 20), stub.asked

    return asyncio.run(run())


def test_times_come_from_the_clock_at_each_read():
    clock = StepClock(100.5, 100.75, 101.75, 105.0)
    chunks = [text_chunk("a"), text_chunk("b"), text_chunk("c", "stop"), usage_chunk(4, 3) + event(b"[DONE]")]
    outcome, _ = send(Answer(chunks, pace=clock.pace), clock=clock)
    assert outcome.error == ""
    assert (outcome.start_s, outcome.ttft_s, outcome.itl_s, outcome.latency_s) == (100.0, 0.5, [0.25, 1.0], 1.75)
    assert (outcome.num_output_tokens, outcome.prompt_len, outcome.text) == (3, 4, "abc")


def test_a_stream_split_at_every_byte():
    whole = b"".join(completion(6))
    outcome, _ = send(Answer([whole[i : i + 1] for i in range(len(whole))]))
    assert (outcome.error, outcome.num_output_tokens, len(outcome.itl_s)) == ("", 6, 5)


def test_events_that_come_together_have_one_time():
    outcome, _ = send(Answer([b"".join(completion(6))]))
    assert (outcome.error, outcome.itl_s) == ("", [0.0] * 5)


def test_what_completions_are_asked():
    body = {"ignore_eos": True, "temperature": 0.5}
    _, asked = send(Answer(completion(1)), body=body, headers={"Authorization": "Bearer k"})
    assert asked[0].path == "/v1/completions"
    assert (asked[0].headers["authorization"], asked[0].headers["x-request-id"]) == ("Bearer k", "r-1")
    assert asked[0].body == {
        "model": "m",
        "prompt": "Once upon",
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        **body,
    }


def test_token_ids_are_sent_as_they_are():
    _, asked = send(Answer(completion(1)), ServeRequest([1, 2, 3], 3, 5))
    assert asked[0].body["prompt"] == [1, 2, 3]


def test_what_chat_is_asked():
    chunks = [event({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}), event(b"[DONE]")]
    outcome, asked = send(Answer(chunks), backend="openai-chat")
    assert (asked[0].path, asked[0].body["max_completion_tokens"]) == ("/v1/chat/completions", 5)
    assert asked[0].body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Once upon"}]}]
    assert (outcome.error, outcome.text) == ("", "a")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer([b'{"error": {"message": "too many requests"}}'], status=429), "HTTP 429: too many requests"),
        (Answer([b"<h1>bad gateway</h1>"], status=502), "HTTP 502: <h1>bad gateway</h1>"),
        (Answer([], status=503), "HTTP 503: Said"),
        (Answer([text_chunk("a"), event({"error": {"message": "engine died"}})]), "error in the stream: engine died"),
        (Answer([text_chunk("a"), event(b"{not json")]), "the stream is no completion: JSONDecodeError"),
        (Answer([event({"choices": [3]})]), "the stream is no completion: AttributeError"),
        (Answer([text_chunk("a")]), "the stream broke off"),
        (Answer([text_chunk("a")], breaks_off=True), "ClientPayloadError"),
        (Answer([]), "the stream ended without a token"),
    ],
)
def test_failures_are_in_the_outcome(answer, said):
    outcome, _ = send(answer)
    assert outcome.error.startswith(said)
    assert not outcome.succeeded
    assert "\n" not in outcome.error


@pytest.mark.parametrize("choice", [{"text": "a b"}, {"message": {"content": "a b"}}])
def test_an_answer_without_a_stream_is_one_chunk(choice):
    whole = {"choices": [choice | {"finish_reason": "stop"}], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    clock = StepClock(101.5)
    answer = Answer([json.dumps(whole).encode()], kind=b"application/json", pace=clock.pace)
    outcome, asked = send(answer, clock=clock, body={"stream": False})
    assert asked[0].body["stream"] is False
    assert (outcome.error, outcome.text, outcome.num_output_tokens, outcome.prompt_len) == ("", "a b", 2, 4)
    assert (outcome.ttft_s, outcome.itl_s, outcome.latency_s) == (1.5, [], 1.5)


def test_no_server():
    async def run():
        async with Client(Server(base_url="http://127.0.0.1:9"), {}, lambda: 0.0) as client:
            with pytest.raises(ResourceError, match=r"there is no server at http://127\.0\.0\.1:9"):
                await client.first_model()
            return await client.send("m", REQUEST)

    assert "ClientConnectorError" in asyncio.run(run()).error


def test_the_first_model():
    async def ask(models):
        async with StubServer(lambda _: Answer([]), models) as stub, Client(Server(base_url=stub.url), {}, float) as c:
            return await c.first_model()

    found = asyncio.run(ask({"data": [{"id": "a", "root": "b"}, {"id": "c"}]}))
    assert (found.model_id, found.root) == ("a", "b")
    for models in ({"data": []}, {}, [], {"data": [{"root": "b"}]}):
        with pytest.raises(ResourceError, match="lists no model"):
            asyncio.run(ask(models))


def test_addresses():
    assert Server(base_url="https://a.b/x/", endpoint="v2/c").url == "https://a.b/x/v2/c"
    assert "secret" not in repr(Server(base_url="http://a", headers={"Authorization": "secret"}))
    assert Server(base_url="http://me:secret@a:1").shown_url == "http://a:1/v1/completions"
    for wrong in ("127.0.0.1:8000", "ftp://a", ""):
        with pytest.raises(ConfigError, match="is no address"):
            Server(base_url=wrong)


def test_the_payload_is_json_of_any_text():
    _, asked = send(Answer(completion(1)), ServeRequest('"é\n\u2028', 2, 5))
    assert asked[0].body["prompt"] == json.loads(json.dumps('"é\n\u2028'))
