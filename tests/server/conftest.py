"""One server that lasts for all tests, and others on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from server_process import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for all tests that leave nothing behind."""
    made = Server("--chat-template-kwarg", "enable_thinking").wait_until_ready()
    yield made
    made.stop()


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
