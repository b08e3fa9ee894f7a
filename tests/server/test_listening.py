"""Unix sockets that a server listens on, and a path that a proxy puts before its own: asked by the openai client."""

from __future__ import annotations

import re
import socket
import stat
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from albireo.errors import ConfigError
from albireo.server.app import routes
from albireo.server.listening import Listening, _at_port
from albireo.server.root_path import OWN
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings


def test_a_unix_socket_is_served_and_gone_at_the_end(start: Any, tmp_path: Path) -> None:
    path = tmp_path / "my socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))  # by a server that was killed: nobody listens
    left.close()
    server = start("--uds", str(path), "--root-path", "/llm/", is_ready=False)
    assert server.url == f"http+unix:{tmp_path}/my"  # as far as the next blank
    server.wait_for("story is ready")
    assert stat.S_ISSOCK(path.lstat().st_mode)
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport) as asking:
        for below in ("/v1", "/llm/v1"):  # a proxy that takes its path off, and one that leaves it
            client = openai.OpenAI(
                base_url=f"http://localhost{below}", api_key="none", http_client=asking, max_retries=0
            )
            chunks = client.completions.create(model="story", prompt="Once upon", max_tokens=5, stream=True)
            assert "".join(chunk.choices[0].text for chunk in chunks)
        page = asking.get("http://localhost/llm?model=story", follow_redirects=True)
        assert (page.status_code, str(page.url)) == (200, "http://localhost/llm/?model=story")
        files = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert len(files) >= 3
        for file in files:
            assert asking.get(str(page.url.join(file))).status_code == 200, file
        assert asking.get("http://localhost/llm/openapi.json").json()["servers"] == [{"url": "/llm"}]
        moved = asking.get("http://localhost/llm/version/?a=b")
        assert str(moved.next_request and moved.next_request.url) == "http://localhost/llm/version?a=b"
        for elsewhere in ("/llmm/v1/models", "/llm/llm/v1/models", "/LLM/v1/models"):
            assert asking.get(f"http://localhost{elsewhere}").status_code == 404
    with pytest.raises(ConfigError, match="another server listens there"):
        Listening(ServerSettings(uds=str(path)))
    assert server.stop() == 0 and not path.exists()


@pytest.mark.parametrize("value", ["llm", "/a b", "//", "/../x", "/a/./b", "/%61", "http://host/llm", "/a?b", "/日"])
def test_a_root_path_that_is_none(value: str) -> None:
    if not value.strip("/"):
        assert ServerSettings(root_path=value).root_path == ""
        return
    with pytest.raises(ConfigError, match="root_path="):
        ServerSettings(root_path=value)


def test_a_root_path_that_routes_have() -> None:
    """Below it nobody could tell whether it is a proxy's or a route's."""
    paths = [route.path for route in routes(Serving(ServerSettings(), {}))]
    assert {path.split("/")[1] for path in paths if path != "/"} == OWN
    for value in ("/v1", "/api/llm", "/health"):
        with pytest.raises(ConfigError, match="begins as routes of this server do"):
            ServerSettings(root_path=value)


def test_only_its_own_socket_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket is there"):
        Listening(ServerSettings(uds=str(path)))
    assert path.read_text() == "precious"
    path.unlink()
    first = Listening(ServerSettings(uds=str(path)))
    path.unlink()
    second = Listening(ServerSettings(uds=str(path)))
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


@pytest.mark.parametrize("name", ["x" * 120, "nowhere/socket"])
def test_a_path_that_can_be_no_socket(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on uds="):
        Listening(ServerSettings(uds=str(tmp_path / name)))


def test_it_goes_in_place_of_a_port() -> None:
    with pytest.raises(ConfigError, match="in place of host and port"):
        ServerSettings(uds="socket", port=8001)


def test_a_name_that_has_addresses_of_ipv6_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    resolve = socket.getaddrinfo
    answers = {"six": "::1", "both": None}

    def found(host: str, *args: Any, **kwargs: Any) -> Any:
        both = [*resolve("::1", *args, **kwargs), *resolve("127.0.0.1", *args, **kwargs)]
        return both if answers[host] is None else resolve(answers[host], *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(socket, "create_server", lambda address, family, backlog: (address, family, backlog))
    families = []
    for host in answers:
        families.append(_at_port(ServerSettings(host=host, port=0))[1])  # type: ignore[index]
    assert families == [socket.AF_INET6, socket.AF_INET]


def test_a_name_that_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on a\.\.b:8000 \(it is no name of a host\); take another"):
        Listening(ServerSettings(host="a..b"))

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConfigError, match=r"cannot listen on elsewhere:8000 \(Name or service not known\); take"):
        Listening(ServerSettings(host="elsewhere"))
