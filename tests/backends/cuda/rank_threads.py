"""Ranks as threads of one process, of which one computes at a time: Triton's interpreter is for one.

A gather is where they take turns, and where all of them meet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

R = TypeVar("R")


class Meeting:
    """What ranks share. Fields: num_gathers: of all of them together."""

    def __init__(self, size: int) -> None:
        self.size, self.num_gathers = size, 0
        self.turn, self.barrier = threading.Lock(), threading.Barrier(size, timeout=60)
        self.rows: dict[int, torch.Tensor] = {}

    @contextmanager
    def others_go_on(self) -> Iterator[None]:
        self.turn.release()
        try:
            self.barrier.wait()
        finally:
            self.turn.acquire()
        yield


class ThreadPeers:
    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting, self.rank = meeting, rank

    @property
    def size(self) -> int:
        return self._meeting.size

    def gather(self, out: torch.Tensor, x: torch.Tensor) -> None:
        meeting = self._meeting
        assert out.shape == (self.size, *x.shape) and out.dtype == x.dtype
        assert out.is_contiguous() and x.is_contiguous()
        meeting.num_gathers += 1
        meeting.rows[self.rank] = x.clone()
        with meeting.others_go_on():
            for rank, rows in meeting.rows.items():
                out[rank] = rows
        with meeting.others_go_on():  # then rows may be others
            pass


def on_all_ranks(size: int, run: Callable[[ThreadPeers], R]) -> list[R]:
    """What run returns on each rank. Raises what one of them raises."""
    meeting, found, failed = Meeting(size), {}, []

    def of_rank(rank: int) -> None:
        try:
            with meeting.turn:
                found[rank] = run(ThreadPeers(meeting, rank))
        except threading.BrokenBarrierError:
            pass  # another says why
        except BaseException as error:
            failed.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=of_rank, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [found[rank] for rank in range(size)]
