"""One server that lasts for all tests, and others on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server_process import Server
from tool_asks import TEMPLATE


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for all tests that leave nothing behind."""
    made = Server("--chat-template-kwarg", "enable_thinking").wait_until_ready()
    yield made
    made.stop()


def with_tools(folder: Path, *args: str) -> Iterator[Server]:
    path = folder / "tools.jinja"
    path.write_text(TEMPLATE)
    names = [word for name in ("think", "enable_thinking") for word in ("--chat-template-kwarg", name)]
    made = Server("--chat-template", str(path), *names, *args).wait_until_ready()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that calls tools, and does not think."""
    yield from with_tools(tmp_path_factory.mktemp("template"), "--reasoning-parser", "none")


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that thinks when the template's variables `think` or `enable_thinking` say so."""
    yield from with_tools(tmp_path_factory.mktemp("template"))


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """start(*args): a server of one's own, ready to serve."""
    made: list[Server] = []

    def begin(*args: str, is_poisoned: bool = False, is_ready: bool = True) -> Server:
        made.append(Server(*args, is_poisoned=is_poisoned))
        return made[-1].wait_until_ready() if is_ready else made[-1]

    yield begin
    for each in made:
        each.stop()
