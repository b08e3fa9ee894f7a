"""ProcessPeers on a group that ends as NCCL's does: when no recording is left that has a gather, and nobody gathers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from albireo.backends.cuda import open_rank
from albireo.backends.cuda.peers import ProcessPeers
from albireo.errors import RankLost

GPU = torch.device("cuda", 0)


class Group:
    """Fields: recordings: none is left. log: what was asked for."""

    newest: Group

    def __init__(self, *_: object) -> None:
        self.log: list[str] = []
        self.recordings, self.ends, self._mutex = threading.Event(), threading.Event(), threading.Lock()
        Group.newest = self

    class Options:
        """None is set."""

    def _allgather_base(self, out: torch.Tensor, x: torch.Tensor) -> Group:
        with self._mutex:
            self.log.append("gather")
        return self

    def wait(self) -> None:
        """Of a stream, so not here."""

    def abort(self) -> None:
        with self._mutex:
            self.ends.set()
            self.log.append("aborted" if self.recordings.wait(2.0) else "never ended")


@pytest.fixture(autouse=True)
def _group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASYNC_ERROR_HANDLING", "ENABLE_MONITORING", "DUMP_ON_TIMEOUT"):
        monkeypatch.delenv(f"TORCH_NCCL_{name}", raising=False)
    monkeypatch.setattr(dist, "ProcessGroupNCCL", Group, raising=False)


def test_who_holds_recordings_does_not_wait_for_an_end_that_waits_for_them(tmp_path: Path) -> None:
    peers, rows = ProcessPeers(0, 2, str(tmp_path / "meeting"), GPU), torch.zeros(2, 1, 4)
    peers.gather(rows, rows[0])
    ending = threading.Thread(target=peers.abort)
    ending.start()
    assert Group.newest.ends.wait(2.0)
    with pytest.raises(RankLost, match="another rank is gone"):
        peers.gather(rows, rows[0])
    Group.newest.recordings.set()
    peers.abort()
    ending.join()
    assert Group.newest.log == ["gather", "aborted"]


@pytest.mark.parametrize("is_eager", [False, True])
def test_recordings_go_before_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_eager: bool) -> None:
    class Graphs:
        def let_go(self) -> None:
            Group.newest.log.append("let go")
            Group.newest.recordings.set()

    monkeypatch.setattr(open_rank, "CudaGraphs", Graphs)
    monkeypatch.setattr(open_rank, "open_model", lambda *args, **options: options["recorder"])
    told: list[Callable[[], None]] = []
    nothing: Any = None
    recorder = open_rank.open_rank(
        nothing,
        nothing,
        rank=0,
        size=2,
        vocab_size=9,
        device="cuda:0",
        meeting=str(tmp_path / "meeting"),
        least=int,
        watch=lambda on_lost, at_end: told.extend((on_lost, at_end)),
        is_eager=is_eager,
    )
    assert isinstance(recorder, Graphs) is not is_eager
    if is_eager:
        Group.newest.recordings.set()
    told[1]()
    told[0]()
    assert Group.newest.log == ([] if is_eager else ["let go"]) + ["aborted"]


def test_torch_ends_no_process_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does its thread look for a file that goes when ranks end, for minutes; who wants it gets it."""
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    ProcessPeers(0, 2, str(tmp_path / "meeting"), GPU)
    found = [
        os.environ[f"TORCH_NCCL_{name}"] for name in ("ASYNC_ERROR_HANDLING", "ENABLE_MONITORING", "DUMP_ON_TIMEOUT")
    ]
    assert found == ["0", "0", "1"]
