"""No key, no way in: whatever the path, the method, or their spelling."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from albireo.errors import ConfigError
from albireo.server.endpoints.page import ASSETS
from albireo.server.errors import HttpError
from albireo.server.guard import ACCOUNT, Guard
from albireo.server.settings import ServerSettings

PATHS = [
    "/page", "/page/", "//", "/page/app.js/", "/page/APP.js", "/%70age/app.js", "/page/../v1/models",
    "/page/nothing.js", "/page/%2e%2e/guard.py", "/page/app.js%00", "/index.html", "/v1/completions", "/v1/models",
    "/metrics", "/docs", "/openapi.json", "/version", "/ping", "/v1/stats", "/tokenize", "/v1/requests/x/explain",
    "/health/", "//health", "/HEALTH", "/%68ealth", "/health%2f", "/x/../health", "/health/../v1/models",
    "/v1/models?x=/health", "/health;/v1/models", "/./health", "/nothing", "*",
    "/v1/messages", "/v1/responses", "/v1/responses/x", "/v1/messages/count_tokens", "/v1/responses/x/cancel",
    "/v1/responses/input_tokens",
    "/v1/embeddings", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank",
    "/v2/embed", "/embed", "/embed_all", "/embed_sparse", "/predict", "/similarity", "/info", "/completion", "/infill",
    "/apply-template", "/props", "/slots", "/slots/0",
]  # fmt: skip
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"]


def status(server: Any, method: str, path: str, *headers: str) -> int:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        lines = [f"{method} {path} HTTP/1.1", "host: x", "connection: close", "content-length: 0", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        return int(connection.recv(65536).split()[1])


@pytest.mark.parametrize("path", PATHS)
def test_every_way_is_shut(guarded: Any, path: str) -> None:
    assert {status(guarded, method, path) for method in METHODS} <= {401, 400}


@pytest.mark.parametrize("path", ["/health", *ASSETS])
def test_health_and_the_files_of_the_page_are_open_to_be_read(guarded: Any, path: str) -> None:
    assert {method: status(guarded, method, path) for method in METHODS} == {
        method: 200 if method in ("GET", "HEAD") else 401 for method in METHODS
    }


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("authorization: Bearer sesame", 200),
        ("Authorization: bearer sesame", 200),
        ("x-api-key: sesame", 200),
        ("authorization: Bearer sesam", 401),
        ("authorization: Bearer sesame1", 401),
        ("authorization: Bearer", 401),
        ("authorization: Basic sesame", 401),
        ("authorization: sesame", 401),
        ("authorization: Bearer ses\xe4me", 401),
        ("x-forwarded-for: 127.0.0.1", 401),
        ("host: 127.0.0.1", 401),
    ],
)
def test_keys(guarded: Any, header: str, expected: int) -> None:
    assert status(guarded, "GET", "/v1/models", header) in (
        (expected, 400) if header.startswith("host") else (expected,)
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ("",)},
        {"api_key": ("  ",)},
        {"api_key": ("schlüssel",)},
        {"port": 65536},
        {"port": -1},
        {"pooling_type": "sum"},
        {"tool_call_parser": "nobodys"},
        {"reasoning_parser": "nobodys"},
        {"default_chat_template_kwargs": "[1]"},
        {"default_chat_template_kwargs": "{"},
        {"served_model_name": ("a", "")},
        {"ssl_certfile": "cert.pem"},
        {"max_n": 0},
        {"request_timeout": float("nan")},
        {"reader_timeout": 0},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings)).split("_")[0].replace("api", "API")):
        ServerSettings(**settings)


def test_settings_at_their_limits() -> None:
    assert [ServerSettings(port=port).port for port in (0, 65535)] == [0, 65535]
    assert ServerSettings(default_chat_template_kwargs='{"a": 1}').template_defaults == {"a": 1}


# -- in this process ---------------------------------------------------------------------------------------------------


class Asked:
    """What became of a request: messages that were sent, and whether the application was reached."""

    def __init__(
        self, keys: Sequence[str] = (), *, logs: bool = False, fails: Callable[[], None] | None = None
    ) -> None:
        self.is_reached, self.sent = False, list[Any]()
        self._fails = fails
        self._guard = Guard(self._application, keys, ["/health", "/page/app.js"], logs)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        self.is_reached = True
        if scope["type"] != "http":
            return
        scope[ACCOUNT]["id"] = "cmpl-1"
        if self._fails is not None:
            if scope["path"] == "/begun":
                await send({"type": "http.response.start", "status": 200, "headers": []})
            self._fails()
        await send({"type": "http.response.start", "status": int(scope["query_string"] or 200), "headers": []})
        await send({"type": "http.response.body", "body": b"it"})

    def __call__(self, path: str, *headers: tuple[bytes, bytes], **said: Any) -> int:
        """The status; 0: none was sent."""
        scope = {"type": "http", "path": path, "raw_path": path.encode(), "method": "GET", "query_string": b""}
        asyncio.run(self._guard({**scope, "headers": list(headers), **said}, self._receive, self._send))
        return next((message["status"] for message in self.sent if "status" in message), 0)

    async def _receive(self) -> Any:
        return {"type": "http.request", "body": b""}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


def bearer(*keys: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {key}".encode()) for key in keys]


def test_one_of_several_keys_opens_and_a_fifth_is_not_looked_at() -> None:
    keys = ["sesame", "poppy"]
    for given, status in (
        (bearer("sesame"), 200),
        (bearer("poppy"), 200),
        (bearer("x", "x", "x", "poppy"), 200),
        (bearer("x", "x", "x", "x", "poppy"), 401),
        ([(b"x-api-key", b" poppy ")], 200),
        ([(b"x-key", b"poppy")], 401),
        ([(b"x-key", b"Bearer poppy")], 401),
        ([(b"authorization", b"Basic: poppy")], 401),
        ([], 401),
    ):
        asked = Asked(keys)
        assert asked("/v1/models", *given) == status
        assert asked.is_reached == (status == 200)
    assert Asked()("/v1/models") == 200


@pytest.mark.parametrize(
    ("path", "said", "status"),
    [
        ("/health", {}, 200),
        ("/health", {"method": "HEAD"}, 200),
        ("/health", {"method": "POST"}, 401),
        ("/health", {"raw_path": b"/%68ealth"}, 401),
        ("/health", {"raw_path": None}, 401),
        ("/metrics", {}, 401),
        ("/metrics", {"raw_path": None}, 401),
    ],
)
def test_what_is_open_is_so_as_it_is_spelled(path: str, said: dict[str, Any], status: int) -> None:
    assert Asked(["sesame"])(path, **said) == status


def test_of_what_is_no_request_the_application_hears_when_it_starts_only() -> None:
    """A websocket has a path and headers, too, and nobody would ask it for a key."""
    for kind, is_heard in (("lifespan", True), ("websocket", False), ("other", False)):
        asked = Asked()
        assert asked("/v1/models", type=kind) == 0
        assert asked.is_reached == is_heard and not asked.sent


def broken() -> None:
    raise ZeroDivisionError("of somebody's prompt")


def refused() -> None:
    raise HttpError(418, "no tea")


def test_an_exception_is_an_answer_that_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(fails=broken)
    assert asked("/v1/models") == 500
    assert b"internal error" in asked.sent[1]["body"] and b"prompt" not in asked.sent[1]["body"]
    assert "a request failed" in caplog.text
    assert Asked(fails=refused)("/v1/models") == 418
    # behind the beginning of an answer there is no other
    begun = Asked(fails=broken)
    with pytest.raises(ZeroDivisionError):
        begun("/begun")
    late = Asked(fails=refused)
    assert late("/begun") == 200 and len(begun.sent) == len(late.sent) == 1


def test_what_the_log_says(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "albireo.server")

    def lines(path: str, status: int = 200, *, logs: bool = True, method: str = "GET") -> list[Any]:
        caplog.clear()
        Asked(logs=logs)(path, query_string=str(status).encode(), method=method)
        return [json.loads(record.getMessage()) for record in caplog.records]

    (line,) = lines("/" + "x" * 400)
    assert line["path"] == "/" + "x" * 199 and (line["status"], line["id"]) == (200, "cmpl-1")
    assert {"time", "event", "method", "wall_s"} <= set(line)
    assert not lines("/v1/models", logs=False)
    for path in ("/metrics", "/ping", "/health", "/page/app.js"):
        assert [len(lines(path, status)) for status in (200, 304, 503, 500, 404)] == [0, 0, 0, 1, 1]
    assert not lines("/page/app.js", method="HEAD") and len(lines("/page/app.js", method="POST")) == 1
