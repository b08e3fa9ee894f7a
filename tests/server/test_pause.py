"""A server that is told to pause: what becomes of what runs, and of what comes meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from server_process import Server, wait_until

ASK: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, "ignore_eos": True}


@contextmanager
def asked(server: Server, name: str) -> Iterator[Any]:
    """A request in the background: its answer, once it is called."""
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(server.http.post("/v1/completions", json={**ASK, "request_id": name}).json())
    )
    thread.start()

    def answer() -> Any:
        thread.join(60)
        return answers[0]["choices"][0]

    yield answer
    thread.join(60)


@pytest.fixture
def resumed(killable: Server) -> Iterator[Server]:
    yield killable
    killable.gate.open()
    assert killable.http.post("/resume").json() == {"status": "resumed"}


def is_paused(server: Server) -> bool:
    return bool(server.http.get("/is_paused").json()["is_paused"])


def test_what_is_kept_goes_on_from_its_tokens(resumed: Server) -> None:
    server = resumed
    whole = server.http.post("/v1/completions", json=ASK).json()["choices"][0]
    server.gate.hold(4)
    with asked(server, "kept") as kept:
        wait_until(server.gate.is_holding, server)
        assert server.http.post("/pause?mode=keep").json() == {"status": "paused"}
        server.gate.open()
        with asked(server, "later") as later:
            wait_until(lambda: server.http.get("/health").json().get("num_held") == 2, server)
            assert is_paused(server) and server.http.get("/health").json()["status"] == "paused"
            # its memory may be had by others meanwhile, or its files written
            assert server.http.post("/sleep").status_code == 200 and server.workers() == []
            assert server.http.post("/resume").json() == {"status": "resumed"}
            assert (kept()["text"], later()["text"]) == (whole["text"], whole["text"])
    assert not is_paused(server)
    account = server.http.get("/v1/requests/cmpl-kept/explain").json()
    assert account["state"] == "over"


def test_what_is_waited_for_is_finished_and_what_comes_waits(resumed: Server) -> None:
    server = resumed
    server.gate.hold(3)
    with asked(server, "first") as first:
        wait_until(server.gate.is_holding, server)
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(server.http.post("/pause?mode=wait").json()))
        thread.start()
        wait_until(lambda: is_paused(server), server)
        with asked(server, "second") as second:
            wait_until(lambda: server.http.get("/health").json().get("num_held") == 1, server)
            assert not answers
            server.gate.open()
            assert first()["finish_reason"] == "length"
            thread.join(60)
            assert answers == [{"status": "paused"}]
            server.http.post("/resume")
            assert second()["text"] == first()["text"]


def test_what_is_aborted_ends_as_it_is(resumed: Server) -> None:
    server = resumed
    server.gate.hold(4)
    with asked(server, "cut") as cut:
        wait_until(server.gate.is_holding, server)
        assert server.http.post("/pause?clear_cache=false").json() == {"status": "paused"}
        assert cut()["finish_reason"] == "abort"
        server.gate.open()


def test_requests_are_ended_by_their_ids(killable: Server) -> None:
    server = killable
    server.gate.hold(2)
    with asked(server, "one") as one, asked(server, "two") as two:
        wait_until(lambda: server.http.get("/load").json()["server_load"] == 2, server)
        told = server.http.post("/abort_requests", json={"request_ids": ["cmpl-one", "cmpl-nobody"]}).json()
        assert told == {"status": "aborted", "aborted": 1} and one()["finish_reason"] == "abort"
        assert server.http.post("/abort_requests").json()["aborted"] == 1
        assert two()["finish_reason"] == "abort"
        server.gate.open()


def test_who_leaves_is_held_no_more(resumed: Server, open_stream: Any) -> None:
    server = resumed
    assert server.http.post("/pause?mode=keep").status_code == 200
    connection = open_stream(server, {**ASK, "stream": True})
    wait_until(lambda: server.http.get("/health").json()["num_held"] == 1, server)
    connection.close()
    wait_until(lambda: server.http.get("/health").json()["num_held"] == 0, server)


def test_what_is_held_when_the_server_ends_is_told(start: Any) -> None:
    server = start("--shutdown-timeout", "0.2")
    server.http.post("/pause?mode=keep")
    with asked(server, "held"):
        wait_until(lambda: server.http.get("/health").json().get("num_held") == 1, server)
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(server.http.post("/v1/completions", json=ASK)))
        thread.start()
        wait_until(lambda: server.http.get("/health").json().get("num_held") == 2, server)
        server.process.terminate()
        thread.join(60)
        (told,) = answers
        assert (told.status_code, told.headers["retry-after"]) == (503, "5")
        assert told.json()["error"]["code"] == "shutting_down"
        assert server.wait_for_end() == 0


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/pause?mode=stop", "mode"),
        ("/pause?clear_cache=x", "clear_cache"),
        ("/pause?a=1", "a"),
        ("/resume?mode=keep", "mode"),
    ],
)
def test_what_is_not_known_is_refused(server: Server, path: str, param: str) -> None:
    answer = server.http.post(path)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not is_paused(server)
