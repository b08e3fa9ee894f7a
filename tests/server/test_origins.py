"""Pages of other origins: who may ask, as a browser finds out, and that a key is still asked for."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from albireo.errors import ConfigError
from albireo.server.origins import behind_origins
from albireo.server.settings import ServerSettings
from server_process import Server

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


def allowed(origins: tuple[str, ...], asking: str) -> bool:
    """Whether a page of an origin may send its request and read the answer."""

    async def answer(http: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
    client = TestClient(behind_origins(app, ServerSettings(allowed_origins=origins).allowed_origins))
    before = client.options("/", headers={"origin": asking, **PREFLIGHT})
    after = client.post("/", headers={"origin": asking})
    assert after.text == "hello", "it is the browser who keeps answers back"
    told = [each.headers.get("access-control-allow-origin") for each in (before, after)]
    assert told[0] == told[1] and told[0] in (None, "*", asking)
    return told[0] is not None


@pytest.mark.parametrize(
    "asking", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:80", "http://ui.localhost"]
)
def test_pages_of_this_machine_may_ask_unless_told(asking: str) -> None:
    assert allowed(ServerSettings().allowed_origins, asking)
    assert not allowed(("[]",), asking) and not allowed(("http://localhost:9",), asking)


@pytest.mark.parametrize(
    "asking",
    [
        "https://example.org",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "null",
        "http://notlocalhost",
    ],
)
def test_others_may_where_they_are_named(asking: str) -> None:
    assert not allowed(ServerSettings().allowed_origins, asking)
    assert allowed(("*",), asking) and allowed(('["*"]',), asking)
    assert allowed(("loopback", asking), asking)


@pytest.mark.parametrize(
    "value", ["example.org", "https://example.org/", "https://Example.org", '["a"', "[1]", "https://", "http://a:b", ""]
)
def test_what_is_no_origin_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="allowed_origins"):
        ServerSettings(allowed_origins=(value,))


def test_a_page_that_may_ask_needs_the_key(guarded: Server) -> None:
    origin = {"origin": "http://localhost:5173"}
    preflight = guarded.http.options("/v1/completions", headers={**origin, **PREFLIGHT})
    assert preflight.status_code == 200 and "authorization" in preflight.headers["access-control-allow-headers"]
    denied = guarded.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers=origin)
    assert denied.status_code == 401 and denied.headers["access-control-allow-origin"] == origin["origin"]
    assert guarded.http.options("/v1/completions").status_code == 401
    stranger = guarded.http.options("/v1/completions", headers={"origin": "https://example.org", **PREFLIGHT})
    assert stranger.status_code == 400 and "access-control-allow-origin" not in stranger.headers


def test_what_a_page_of_another_site_sends_unasked_does_nothing(server: Server) -> None:
    """A browser sends it for any page, and says whose it is; the answer is all that it keeps back."""
    site = {"origin": "https://example.org", "sec-fetch-site": "cross-site"}
    for path in ("/pause", "/sleep", "/reset_prefix_cache", "/v1/completions"):
        refused = server.http.post(path, headers=site, content=b'{"prompt": "a", "max_tokens": 1}')
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), path
    assert server.http.get("/is_paused", headers=site).json() == {"is_paused": False}
    assert server.http.post("/pause", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    for may in (
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"origin": "https://example.org", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "https://example.org"},
        {},
    ):
        assert server.http.post("/resume", headers=may).status_code == 200, may
