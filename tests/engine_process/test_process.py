"""A run of the engine process: where its socket is, and what becomes of one that cannot be started."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from albireo.engine_process.process import EngineProcess
from albireo.engine_process.spawned import Spawned
from albireo.errors import EngineError
from albireo.replicas.place import local_places
from albireo.replicas.replicas import Replicas

#: A program that connects, and stays.
CONNECTS = "import socket, sys; own = socket.socket(socket.AF_UNIX); own.connect(sys.argv[1]); own.recv(1)"


def test_a_socket_is_found_below_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of a socket has 107 bytes, and directories of jobs are longer."""
    place = tmp_path / ("d" * 120)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    statuses: list[int] = []

    async def run() -> None:
        command = (sys.executable, "-c", CONNECTS)
        process = EngineProcess(lambda _: None, lambda status, _: statuses.append(status), command)
        async with asyncio.timeout(60):
            await process.start()
            process.kill()
            await process.ended()

    asyncio.run(run())
    assert statuses == [-9]
    assert list(place.iterdir()) == []


def test_a_process_that_cannot_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it: the reason is there, and nothing is left of it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def run() -> None:
        replicas = Replicas({}, local_places(1, ("/no/such/program",)))
        replicas.start()
        try:
            async with asyncio.timeout(60):
                await replicas.wait_until_ready()
        finally:
            await replicas.close()

    with pytest.raises(EngineError, match=r"the engine process cannot be started: .*No such file"):
        asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_what_runs_already_is_taken_over_once_and_the_rest_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a place is the one that began before; the next is begun anew. Nothing is left of either, nor of
    one that nobody wanted."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = (sys.executable, "-c", CONNECTS)
    first, unwanted = Spawned(command), Spawned(command)
    (place,) = local_places(1, command, [first])

    async def run() -> list[int | None]:
        pids = []
        for _ in range(2):
            process = place.launch(lambda _: None, lambda *_: None)
            async with asyncio.timeout(60):
                await process.start()
                pids.append(process.pid)
                process.kill()
                await process.ended()
        return pids

    taken, begun = asyncio.run(run())
    assert taken == first.process.pid != begun
    first.end()
    unwanted.end()
    assert unwanted.process.returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_without_a_thread_to_wait_in_nothing_is_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process that nobody waits for would never be told."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spawned = Spawned((sys.executable, "-c", CONNECTS))

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        process = EngineProcess(lambda _: None, lambda *_: None, spawned=spawned)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no more threads or processes"):
            patch.setattr(threading.Thread, "start", refused)
            await process.start()

    asyncio.run(run())
    assert spawned.process.returncode == -9
    assert list(tmp_path.iterdir()) == []
