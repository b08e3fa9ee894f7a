"""One server that lasts for all tests, and others on demand."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from server_process import Server, lasting
from tool_asks import TEMPLATE
from warm_process import WarmProcess


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """The next test finds the servers that it shares with this one at rest: what still runs there would be counted as
    its own. As the first fixture of a test it ends last, after those that close connections."""
    yield
    held = []
    for server in _servers_among(request.node.funcargs.values()):
        if server.gate.is_closed():
            server.gate.open()
            held.append(server.url)
        server.wait_for_rest()
    assert not held, f"the gates of {held} were left closed"


def _servers_among(values: Iterable[Any]) -> Iterator[Server]:
    """Those that still run. `start` gives none to the next test."""
    for value in values:
        for each in value if isinstance(value, tuple) else (value, getattr(value, "server", None)):
            if isinstance(each, Server) and each.process.poll() is None:
                yield each


@pytest.fixture(scope="session", autouse=True)
def _servers_are_copies() -> Iterator[None]:
    """But for those that are asked for fresh."""
    if sys.platform != "linux":
        yield
        return
    Server.warm = WarmProcess()
    yield
    Server.warm.close()
    Server.warm = None


@pytest.fixture(scope="session")
def ending() -> Iterator[ExitStack]:
    """Stops at the end what was told to stop before: a third of a second each, which no test waits for."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def server(ending: ExitStack) -> Iterator[Server]:
    """One for all tests."""
    yield from lasting(ending, "--chat-template-kwarg", "enable_thinking", is_fresh=True)


@pytest.fixture(scope="session")
def killable(ending: ExitStack) -> Iterator[Server]:
    """One whose engine process may be held and killed, by whoever opens the gate again."""
    yield from lasting(ending, is_poisoned=True, is_fresh=True)


@pytest.fixture(scope="session")
def pooled(ending: ExitStack) -> Iterator[Server]:
    """One that answers who has a key, embeds by the mean, and takes four inputs at most."""
    options = ("--pooling-type", "mean", "--max-embedding-inputs", "4", "--api-key", "sesame")
    for made in lasting(ending, *options):
        made.http.headers["authorization"] = "Bearer sesame"
        yield made


@pytest.fixture(scope="session")
def slow(ending: ExitStack) -> Iterator[Server]:
    """One that takes eight tokens a step, and has 64 blocks; as killable."""
    options = ("--max-num-batched-tokens", "8", "--max-num-seqs", "8", "--num-gpu-blocks-override", "65")
    yield from lasting(ending, *options, is_poisoned=True)


@pytest.fixture(scope="session")
def guarded(ending: ExitStack) -> Iterator[Server]:
    """One that answers who has one of two keys."""
    yield from lasting(ending, "--api-key", "sesame", "--api-key", "other")


def with_tools(ending: ExitStack, folder: Path, *args: str) -> Iterator[Server]:
    """Its engine process may be held and killed."""
    path = folder / "tools.jinja"
    path.write_text(TEMPLATE)
    names = [word for name in ("think", "enable_thinking") for word in ("--chat-template-kwarg", name)]
    yield from lasting(ending, "--chat-template", str(path), *names, *args, is_poisoned=True)


@pytest.fixture(scope="session")
def caller(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that calls tools, and does not think."""
    yield from with_tools(ending, tmp_path_factory.mktemp("template"), "--reasoning-parser", "none")


@pytest.fixture(scope="session")
def thinker(ending: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that thinks when the template's variables `think` or `enable_thinking` say so."""
    yield from with_tools(ending, tmp_path_factory.mktemp("template"))


@pytest.fixture
def start(ending: ExitStack) -> Iterator[Callable[..., Server]]:
    """start(*args): a server of one's own, ready to serve."""
    with ExitStack() as stack:

        def begin(*args: str, is_ready: bool = True, **kwargs: bool) -> Server:
            made = Server(*args, **kwargs)
            ending.callback(made.stop)
            stack.callback(made.ask_to_stop)
            return made.wait_until_ready() if is_ready else made

        yield begin


@pytest.fixture
def open_stream(start: Any) -> Iterator[Callable[..., socket.socket]]:
    """open_stream(server, ask, *headers): a request whose answer nobody has read yet."""
    with ExitStack() as stack:

        def begin(server: Server, ask: dict[str, Any], *headers: str, path: str = "/v1/completions") -> socket.socket:
            host, port = server.url.removeprefix("http://").split(":")
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(60)
            connection.connect((host, int(port)))
            body = json.dumps(ask).encode()
            lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", ""]
            connection.sendall("\r\n".join(lines).encode() + body)
            return connection

        yield begin
