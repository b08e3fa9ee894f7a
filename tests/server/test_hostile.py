"""What a server on the open net gets sent: never a 500, never silence, and a stream beside it does not notice."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import Any

import httpx2 as httpx
import pytest

BASE: dict[str, Any] = {"prompt": "Once", "max_tokens": 2}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Once"}], "max_tokens": 2}
INTEGERS = (
    "max_tokens", "min_tokens", "n", "top_k", "seed", "logprobs", "prompt_logprobs", "priority", "best_of",
    "truncate_prompt_tokens", "top_logprobs", "max_completion_tokens", "temperature", "top_p", "min_p",
    "presence_penalty", "frequency_penalty", "repetition_penalty",
)  # fmt: skip
VALUES = (
    "-1",
    "0",
    str(2**31),
    str(2**63),
    "1e18",
    "1e400",
    '"5"',
    "1.5",
    "NaN",
    "Infinity",
    "[]",
    "{}",
    "true",
    "9" * 5000,
)
#: Values that some of these fields may have.
ALLOWED = {
    ("top_k", "-1"), ("top_k", "0"), ("logprobs", "0"), ("prompt_logprobs", "0"), ("min_tokens", "0"), ("seed", "-1"),
    ("seed", "0"), ("seed", str(2**31)), ("priority", "0"), ("temperature", "0"), ("temperature", "1.5"),
    ("temperature", str(2**31)), ("temperature", str(2**63)), ("temperature", "1e18"), ("repetition_penalty", "1.5"),
    ("repetition_penalty", str(2**31)), ("repetition_penalty", str(2**63)), ("repetition_penalty", "1e18"),
    ("min_p", "0"), ("presence_penalty", "-1"), ("presence_penalty", "0"), ("presence_penalty", "1.5"),
    ("frequency_penalty", "-1"), ("frequency_penalty", "0"), ("frequency_penalty", "1.5"),
    ("top_logprobs", "0"), ("top_logprobs", "-1"), ("logprobs", "true"), ("truncate_prompt_tokens", "-1"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
@pytest.mark.parametrize("field", INTEGERS)
def test_numbers_out_of_their_range(server: Any, path: str, field: str) -> None:
    base = BASE if path == "completions" else CHAT
    for value in VALUES:
        body = json.dumps({key: v for key, v in base.items() if key != field})[:-1] + f', "{field}": {value}}}'
        got = server.http.post(f"/v1/{path}", content=body)
        if (field, value) in ALLOWED and got.status_code == 200:
            continue
        assert got.status_code == 400, (field, value, got.text)
        assert got.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"prompt"', 400),
        (b"{", 400),
        (b'{"prompt": "\xff\xfe"}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "a\\u0000b", "max_tokens": 1}', 200),
        (b"[" * 100_000, 400),
        (b'{"prompt": ' + b"[" * 100_000, 400),
        (b'{"metadata": ' + b'{"a":' * 50_000, 400),
        (b'{"prompt": "x", "metadata": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
        (b'{"prompt": {"a": 1}}', 400),
        (b'{"prompt": []}', 400),
        (b'{"prompt": ""}', None),
        (b'{"prompt": [[]]}', 400),
        (b'{"prompt": [[[1]]]}', 400),
        (b'{"prompt": [-1]}', 400),
        (b'{"prompt": [4294967296]}', 400),
        (b'{"prompt": "x", "stop": [""]}', 400),
        (b'{"prompt": "x", "stop": 5}', 400),
        (b'{"prompt": "x", "stop": "' + b"x" * 257 + b'"}', 400),
        (b'{"prompt": "x", "logit_bias": {"a": 1}}', 400),
        (b'{"prompt": "x", "logit_bias": {"1": "a"}}', 400),
        (b'{"prompt": "x", "allowed_token_ids": []}', 400),
        (b'{"prompt": "x", "request_id": "a b"}', 400),
        (b'{"prompt": "x", "request_id": "a\\r\\nset-cookie: b"}', 400),
        (b'{"prompt": "x", "stream": "yes"}', 400),
        (b'{"prompt": "x", "stream_options": {"include_usage": true}}', 400),
        (b'{"prompt": "x", "model": 5}', 400),
        (b'{"prompt": "x", "cache_salt": ""}', 400),
        (b'{"prompt": ' + json.dumps(["x"] * 129).encode() + b"}", 400),
        (b'{"prompt": "' + b"x" * (11 << 20) + b'"}', 413),
    ],
)
def test_bodies_that_are_none(server: Any, body: bytes, status: int | None) -> None:
    got = server.http.post("/v1/completions", content=body)
    assert got.status_code < 500 and (status is None or got.status_code == status), got.text[:200]


@pytest.mark.parametrize(
    "messages",
    [
        [5],
        [{}],
        [{"role": 5, "content": "a"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": "\ud800"}],
        [{"role": "x" * 1000, "content": "a"}],
        [{"role": "user", "content": "a"}] * 5000,
    ],
)
def test_messages_that_are_none(server: Any, messages: Any) -> None:
    got = server.http.post("/v1/chat/completions", content=json.dumps({"messages": messages}))
    assert got.status_code == 400 and "/etc" not in got.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/nothing", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/requests/" + "x" * 5000 + "/explain", 404),
    ],
)
def test_routes_there_are_not(server: Any, method: str, path: str, status: int) -> None:
    got = server.http.request(method, path)
    assert got.status_code == status
    assert set(got.json()["error"]) == {"message", "type", "param", "code"}


def test_a_wrong_method_is_told_all_that_there_are(server: Any) -> None:
    """Also where they are those of several routes."""
    for path, allowed in (("/v1/files", "GET, HEAD, POST"), ("/v1/completions", "POST"), ("/v1/models", "GET, HEAD")):
        got = server.http.request("PATCH", path)
        assert (got.status_code, got.headers["allow"]) == (405, allowed)


def raw(server: Any, data: bytes) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        with contextlib.suppress(OSError):  # it may be told to go away before all was sent
            connection.sendall(data)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                found += chunk
        return found


@pytest.mark.parametrize(
    "head",
    [
        b"x-long: " + b"a" * 300_000,
        b"\r\n".join(b"x-%d: a" % i for i in range(20_000)),
        b"\r\n".join(b"x-%d: a" % i for i in range(500)),
    ],
)
def test_heads_without_end(server: Any, head: bytes) -> None:
    answer = raw(server, b"GET /health HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) or answer == b""


def test_streams_have_no_chunks_in_http_1_0(server: Any) -> None:
    """Its clients take the sizes of chunks for text; the connection's end is the answer's."""
    body = json.dumps({"prompt": "Once", "max_tokens": 3, "ignore_eos": True, "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    found, _, events = raw(server, head + body).partition(b"\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200") and b"transfer-encoding" not in found
    blocks = [block for block in events.split(b"\n\n") if block.strip()]
    assert blocks[-1] == b"data: [DONE]" and all(block.startswith(b"data: ") for block in blocks)
    assert raw(server, b"GET /health HTTP/1.0\r\n\r\n").endswith(b'{"status":"ok","num_restarts":0}')


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00nonsense\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
    ],
)
def test_nonsense_in_place_of_http(server: Any, sent: bytes) -> None:
    """Refused in the words of every other refusal, which clients take apart."""
    head, _, body = raw(server, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400") and b"content-length: %d" % len(body) in head
    error = json.loads(body)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)
    assert "HTTP/1.1" in error["message"]


def test_nonsense_behind_a_request_is_no_part_of_its_stream(server: Any) -> None:
    body = json.dumps({"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        found = connection.recv(65536)
        connection.sendall(b"nonsense\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                found += chunk
    assert found.startswith(b"HTTP/1.1 200")
    stream, _, refusal = found.partition(b"HTTP/1.1 400")
    assert not refusal or stream.endswith(b"0\r\n\r\n")  # the stream had ended by then


def test_a_stream_keeps_its_pace_beside_all_that(server: Any) -> None:
    """Hostile requests come one after the other while a stream runs; it is the same as alone."""
    ask = {"prompt": "Once upon a time", "max_tokens": 300, "stream": True, "seed": 1, "ignore_eos": True}
    alone = server.http.post("/v1/completions", json=ask).text.count("data: ")
    is_over = threading.Event()
    statuses: set[int] = set()

    def pester() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
            while not (is_over.is_set() and statuses):
                statuses.add(http.post("/v1/completions", content=b"[" * 200_000).status_code)
                statuses.add(http.post("/v1/completions", json={"prompt": "very " * 200_000}).status_code)
                statuses.add(http.post("/v1/chat/completions", json={"messages": [{"a": "b"}] * 4000}).status_code)

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        with server.http.stream("POST", "/v1/completions", json=ask) as answer:
            lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    finally:
        is_over.set()
        thread.join()
    assert statuses == {400}
    assert lines[-1] == "data: [DONE]" and 0 < len(lines) <= alone + 300
    texts = [choice["text"] for line in lines[:-1] for choice in json.loads(line[6:])["choices"]]
    whole = server.http.post("/v1/completions", json={**ask, "stream": False}).json()["choices"][0]["text"]
    assert "".join(texts) == whole
