"""No key, no way in: whatever the path, the method, or their spelling."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from albireo.errors import ConfigError
from albireo.server.endpoints.page import ASSETS
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
        {"port": 70000},
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
