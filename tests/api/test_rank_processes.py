"""The processes of ranks: what becomes of a model when one of them fails, at the start and later."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from albireo.api.ranks.rank_processes import RankProcesses, require_gpus
from albireo.api.ranks.rank_start import RankStart
from albireo.backends.cuda.buckets import NO_ENDING, Bucket, Ending
from albireo.backends.cuda.orders import StagedStep, argument, plain
from albireo.config import EngineConfig
from albireo.errors import ConfigError, EngineError, OutOfMemory, RankLost
from albireo.speculative_config import SpeculativeConfig

#: A rank's process as far as its link goes: `first` is the end of it.
_BEGIN = """
import sys
from multiprocessing.connection import Connection
import json
from albireo.api.ranks.rank_start import HERE, PLACED, SLOTS, RankStart, say
first = Connection(int(sys.argv[1]))
start = RankStart.from_json(first.recv_bytes())
"""


def processes(script: str, count: int = 1) -> tuple[RankProcesses, list[RankStart]]:
    config = EngineConfig()
    starts = [RankStart(config, Path(), 90, i + 1, count + 1, 9, "cpu", "", 8, {}) for i in range(count)]
    return RankProcesses((sys.executable, "-c", _BEGIN + script)), starts


def test_one_that_ends_before_it_is_there() -> None:
    ranks, starts = processes("sys.exit(3)")
    with pytest.raises(RankLost, match="rank 1 ended with status 3; the model is to be loaded again"):
        ranks.start(starts)
    ranks.close()
    assert not ranks.directory.exists()


def test_one_that_says_why_it_cannot_begin() -> None:
    for name, error, words in (("OutOfMemory", OutOfMemory, "no room"), ("KeyError", EngineError, "KeyError: no room")):
        ranks, starts = processes(f"say(first, HERE); say(first, {{'failed': ['{name}', 'no room']}})")
        ranks.start(starts)
        with pytest.raises(error, match=f"rank 1: {words}"):
            ranks.placed()


def test_the_first_ends_while_the_others_can_still_be_found() -> None:
    """Once, and processes end where it fails."""
    ranks, starts = processes("say(first, HERE); first.recv_bytes()")
    ranks.start(starts)
    found = []

    def end() -> None:
        found.append(ranks.directory.exists())
        raise RuntimeError("NCCL error")

    ranks.watch(lambda: None, end)
    ranks.close()
    ranks.close()
    assert found == [True] and not ranks.directory.exists()
    assert all(process.poll() is not None for process in ranks._run.processes)


def test_one_that_fails_is_not_held_up_by_what_its_interpreter_ends_with() -> None:
    """NCCL waits there for recordings, and for others who wait for this one; the first hears of it by its end."""
    ranks, starts = processes("""
import atexit, time
from albireo.api.ranks import rank_process
def fail(first):
    say(first, HERE)
    raise ValueError("no")
rank_process._obey = fail
atexit.register(time.sleep, 60)
rank_process.run(int(sys.argv[1]), int(sys.argv[2]))
""")
    ranks.start(starts)
    assert ranks._run.processes[0].wait(30) == 1
    assert ranks._run.told.wait(30)
    with pytest.raises(RankLost, match="rank 1 ended with status 1"):
        ranks.check()
    ranks.close()


@pytest.mark.parametrize("who", ["rank 0", "rank 1"])
def test_one_that_has_no_room_for_adapters(who: str) -> None:
    """Whoever it is, all are ended, and it is said whose memory it was."""
    script = """
say(first, HERE)
assert json.loads(first.recv_bytes()) == [0, "slots", None]
say(first, %s)
first.recv_bytes()
"""
    ranks, starts = processes(script % ("{'failed': ['OutOfMemory', 'no room']}" if who == "rank 1" else "SLOTS"))
    ranks.start(starts)
    with pytest.raises(OutOfMemory, match="rank 1: no room" if who == "rank 1" else "none here"), ranks.making_slots():
        if who == "rank 0":
            raise OutOfMemory("none here")
    assert all(process.poll() is not None for process in ranks._run.processes)


def test_all_have_slots_and_further_models_have_numbers() -> None:
    ranks, starts = processes("""
say(first, HERE)
assert json.loads(first.recv_bytes()) == [0, "slots", None]
say(first, SLOTS)
say(first, [json.loads(first.recv_bytes()) for _ in range(2)])
""")
    ranks.start(starts)
    with ranks.making_slots():
        pass
    assert (ranks.share("adapt"), ranks.share("share")) == (1, 2)
    assert ranks._receive(0) == [[1, "adapt", None], [2, "share", None]]
    ranks.close()


def test_all_do_the_same_or_none_goes_on() -> None:
    """What a rank is told arrives in order; the least of all is agreed on; a failure here ends the others."""
    script = """
say(first, HERE); say(first, PLACED); first.recv_bytes()
say(first, 10 * start.rank)
assert first.recv_bytes() == b"7"
say(first, [start.rank, json.loads(first.recv_bytes()), first.recv_bytes().hex()])
first.recv_bytes()
"""
    ranks, starts = processes(script, count=2)
    ranks.start(starts)
    ranks.placed()
    assert ranks.least(7) == 7
    with ranks.together(0, "copy_blocks", [(1, 2)]):
        pass
    assert [ranks._receive(place) for place in range(2)] == [[i, [0, "copy_blocks", [[1, 2]]], ""] for i in (1, 2)]
    lost = "rank 0 failed in what all do: ValueError: no"
    with pytest.raises(RankLost, match=lost), ranks.together(0, "swap_in", []):
        raise ValueError("no")
    assert all(process.poll() is not None for process in ranks._run.processes)
    with pytest.raises(RankLost, match=lost):
        ranks.check()


def test_fewer_gpus_than_ranks() -> None:
    require_gpus(2, 2)
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=8, and 7 GPUs can be used here; .* lower it to 4"):
        require_gpus(8, 7)


def test_what_a_rank_is_told_arrives() -> None:
    ending = Ending(draws=True, reports=True)
    for bucket in (None, Bucket(4, False, ending), Bucket(4, True, NO_ENDING, 96)):
        for ends in (b"", b"1234"):
            step = StagedStep({"T": 5, "B": 2}, bucket, ending, True, b"12345678", ends)
            data, words = plain("follow", step)
            assert argument("follow", json.loads(json.dumps(data)), words) == step
    data, words = plain("record", bucket)
    assert argument("record", json.loads(json.dumps(data)), words) == bucket
    eagle, config = {"method": "eagle3", "model": "a"}, {"without": ("fold_norm",), "enable_lora": True}
    told = EngineConfig(**config, speculative_config=SpeculativeConfig.of(eagle))
    start = RankStart(told, Path("a"), 90, 1, 2, 9, "cpu", "", 8, {"num_blocks": 3}, (2, 5))
    assert RankStart.from_json(start.to_json()) == start
