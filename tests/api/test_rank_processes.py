"""The processes of ranks: what becomes of a model when one of them fails, at the start and later."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest

from albireo.api.rank_process import RankStart
from albireo.api.rank_processes import RankProcesses, require_gpus
from albireo.errors import ConfigError, OutOfMemory, RankLost

#: A rank's process as far as its link goes: `first` is the end of it.
_BEGIN = """
import sys
from multiprocessing.connection import Connection
from albireo.api.rank_process import HERE, PLACED, RankFailed
first = Connection(int(sys.argv[1]))
start = first.recv()
"""


def processes(script: str, count: int = 1) -> tuple[RankProcesses, list[RankStart]]:
    nothing = cast(Any, None)
    starts = [RankStart(nothing, Path(), i + 1, count + 1, 9, nothing, "cpu", "", 8, {}) for i in range(count)]
    return RankProcesses((sys.executable, "-c", _BEGIN + script)), starts


def test_one_that_ends_before_it_is_there() -> None:
    ranks, starts = processes("sys.exit(3)")
    with pytest.raises(RankLost, match="rank 1 ended with status 3; the model is to be loaded again"):
        ranks.start(starts)
    ranks.close()
    assert not ranks.directory.exists()


def test_one_that_says_why_it_cannot_begin() -> None:
    ranks, starts = processes("first.send(HERE); first.send(RankFailed('OutOfMemory', 'no room'))")
    ranks.start(starts)
    with pytest.raises(OutOfMemory, match="rank 1: no room"):
        ranks.placed()


def test_all_do_the_same_or_none_goes_on() -> None:
    """What a rank is told arrives in order; the least of all is agreed on; a failure here ends the others."""
    script = """
first.send(HERE); first.send(PLACED); first.recv()
first.send(10 * start.rank)
assert first.recv() == 7
number, name, args = first.recv()
first.send((start.rank, number, name, args))
first.recv()
"""
    ranks, starts = processes(script, count=2)
    ranks.start(starts)
    ranks.placed()
    assert ranks.least(7) == 7
    with ranks.together(0, "copy_blocks", [(1, 2)]):
        pass
    assert [ranks._receive(place) for place in range(2)] == [(i, 0, "copy_blocks", ([(1, 2)],)) for i in (1, 2)]
    lost = "rank 0 failed in what all do: ValueError: no"
    with pytest.raises(RankLost, match=lost), ranks.together(0, "follow"):
        raise ValueError("no")
    assert all(process.poll() is not None for process in ranks._run.processes)
    with pytest.raises(RankLost, match=lost):
        ranks.check()


def test_fewer_gpus_than_ranks() -> None:
    require_gpus(2, 2)
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=8, and 7 GPUs can be used here; .* lower it to 4"):
        require_gpus(8, 7)
