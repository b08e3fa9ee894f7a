"""The input of a batch: which files are one, and what is said of those that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from albireo.server.batches.lines import MAX_ERRORS, Limits, Line, check, read
from albireo.server.batches.request import num_seats, request_body
from albireo.server.errors import HttpError

LIMITS = Limits(max_bytes=1 << 20, max_lines=100, max_body_bytes=1000)
CHAT = "/v1/chat/completions"


def line(name: str, **fields: Any) -> bytes:
    return json.dumps({"custom_id": name, "method": "POST", "url": CHAT, "body": {"model": "fox"}, **fields}).encode()


def written(folder: Path, *lines: bytes) -> Path:
    path = folder / "in.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def test_a_file_of_requests(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf" + line("a"), b"", b"  \r", line("b") + b"\r", line("c"), b"")
    found = check(path, CHAT, LIMITS)
    assert (found.num_lines, found.model, found.errors) == (3, "fox", [])
    assert [(each.number, each.custom_id) for each in read(path, CHAT, LIMITS)] == [(1, "a"), (4, "b"), (5, "c")]


@pytest.mark.parametrize(
    ("bad", "code", "param", "words"),
    [
        (b"{", "invalid_json_line", None, "no JSON"),
        (b"\xff\xfe", "invalid_json_line", None, "no JSON"),
        (b"[" * 100_000, "line_too_long", None, "1000 bytes"),
        (b"[" * 9_000, "invalid_line", None, "no request"),
        (b"[]", "invalid_line", None, "Expected `object`"),
        (b'{"custom_id": "x"}', "invalid_line", None, "missing required field `method`"),
        (line("x", extra=1), "invalid_line", None, "unknown field `extra`"),
        (line(""), "invalid_line", None, "custom_id"),
        (line("x" * 513), "invalid_line", None, "custom_id"),
        (line("x", body=[1]), "invalid_line", "body", "must be an object"),
        (line("x", body={"a": "b" * 1000}), "line_too_long", "body", "--max-body-bytes"),
        (line("x", method="GET"), "invalid_method", "method", "'GET'"),
        (line("x", url="/v1/completions"), "invalid_url", "url", CHAT),
        (line("a"), "duplicate_custom_id", "custom_id", "line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: bytes, code: str, param: str | None, words: str) -> None:
    (error,) = check(written(tmp_path, line("a"), b"", bad, line("z")), CHAT, LIMITS).errors
    assert (error.code, error.line, error.param) == (code, 3, param) and words in error.message


def test_files_that_are_none(tmp_path: Path) -> None:
    (error,) = check(written(tmp_path, b"", b" "), CHAT, LIMITS).errors
    assert (error.code, error.line) == ("empty_file", None)
    (error,) = check(written(tmp_path, *(line(str(i)) for i in range(101))), CHAT, LIMITS).errors
    assert (error.code, error.line) == ("too_many_lines", 101) and "100 requests" in error.message
    assert len(check(written(tmp_path, *[b"{"] * 200), CHAT, LIMITS).errors) == MAX_ERRORS


def test_without_an_endpoint_any_will_do(tmp_path: Path) -> None:
    path = written(tmp_path, line("a"), line("b", url="/v1/embeddings"), line("c", url="/metrics"))
    (error,) = check(path, None, LIMITS).errors
    assert (error.line, error.param) == (3, "url")


@pytest.mark.parametrize(
    ("url", "body", "num"),
    [
        (CHAT, {"n": 3}, 3),
        (CHAT, {"n": "3"}, 1),
        (CHAT, {"n": None, "messages": ["a", "b"]}, 1),
        ("/v1/completions", {"prompt": "a"}, 1),
        ("/v1/completions", {"prompt": [1, 2, 3]}, 1),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2}, 4),
        ("/v1/embeddings", {"input": [[1], [2], [3]]}, 3),
        ("/v1/embeddings", {"input": []}, 1),
        ("/v1/rerank", {"query": "a", "documents": ["b", {"text": "c"}]}, 3),
        ("/v1/rerank", {"query": "a", "documents": [{"text": "c"}, "b"]}, 3),
        ("/v1/score", {"text_1": "a", "text_2": "b"}, 2),
        ("/v1/score", {"queries": ["a", "b"], "items": ["c", "d"]}, 4),
        ("/v1/score", {}, 1),
    ],
)
def test_what_a_line_takes(url: str, body: dict[str, Any], num: int) -> None:
    made = Line(1, "a", url, json.dumps(body).encode())
    assert num_seats(made) == num
    assert request_body(made) == made.body


@pytest.mark.parametrize(
    ("url", "field"), [(CHAT, "stream"), ("/v1/responses", "background"), ("/v1/responses", "store")]
)
def test_what_is_no_line(url: str, field: str) -> None:
    with pytest.raises(HttpError) as refused:
        request_body(Line(1, "a", url, json.dumps({field: True}).encode()))
    assert (refused.value.status, refused.value.param) == (400, field)
    assert request_body(Line(1, "a", url, json.dumps({field: False}).encode()))


def test_responses_are_not_stored() -> None:
    body = request_body(Line(1, "a", "/v1/responses", b'{"input":"x","store":null}'))
    assert msgspec.json.decode(body) == {"input": "x", "store": False}
