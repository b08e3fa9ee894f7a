"""python -m albireo.api.rank_process SOCKET LIFELINE: one rank of a model on several GPUs, but the first.

Started by rank_processes.py, which is told what the first rank does. It opens its own part of the weights, meets the
others where sums need all, and obeys. Knows no requests. Ends when the first rank is gone, whatever it waits for then.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.api.source import ModelSource, open_source
from albireo.config import EngineConfig
from albireo.errors import EngineError
from albireo.graph.program import Program

if TYPE_CHECKING:
    from albireo.backends.cuda.model import CudaModel

#: What a rank says on its way, in this order, and is waited for: it can be reached; its weights are in place.
HERE, PLACED = "here", "placed"


@dataclass(frozen=True, slots=True)
class RankStart:
    """What a rank is told first.

    Fields:
        config: as the source has adopted it. device: torch's name of it. meeting: path of the file by which ranks find
            each other. options: of open_model(), of numbers.
    """

    config: EngineConfig
    directory: Path
    rank: int
    size: int
    vocab_size: int
    program: Program
    device: str
    meeting: str
    model_len: int
    options: dict[str, Any]


class RankFailed(Exception):
    """What a rank says when it cannot go on: args are the name of an error's class, and its message."""


def run(socket: int, lifeline: int) -> None:
    """Obey until the first rank is gone. Args: descriptors. Logs go to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches all processes of a terminal; the first rank decides
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    first = Connection(socket)
    try:
        start: RankStart = first.recv()
        models = {0: _open(start, first)}
        while True:
            number, name, args = first.recv()
            if name == "share":
                models[number] = models[0].sharing(*args)
            else:
                models[number].obey(name, args)
    except (EOFError, ConnectionError):
        return
    except EngineError as error:
        first.send(RankFailed(type(error).__name__, str(error)))
    except Exception as error:
        traceback.print_exc()
        first.send(RankFailed(type(error).__name__, (str(error).splitlines() or [""])[0]))
    sys.exit(1)


def _end_with(lifeline: int) -> None:
    """A rank may wait on its device for one that is gone, and read nothing."""
    os.read(lifeline, 1)
    os._exit(0)


def _open(start: RankStart, first: Connection) -> CudaModel:
    # what the first rank has looked at is not looked at again
    source = open_source(start.directory, replace(start.config, verify_hashes=False))
    prepare(start)
    first.send(HERE)
    return open_rank(start, source, lambda: _say(first), lambda count: _agree(first, count))


def prepare(start: RankStart) -> None:
    """Of every rank, before it says that it can be reached. Raises: see backends.cuda.open_rank.prepare_device()."""
    from albireo.backends.cuda.open_rank import prepare_device

    prepare_device(start.device, start.size)


def _say(first: Connection) -> None:
    first.send(PLACED)
    first.recv()


def _agree(first: Connection, count: int) -> int:
    first.send(count)
    found: int = first.recv()
    return found


def open_rank(
    start: RankStart,
    source: ModelSource,
    before_trial: Callable[[], None],
    least: Callable[[int], int],
    advance: Callable[[int], None] = lambda _: None,
    watch: Callable[[Callable[[], None]], None] = lambda _: None,
) -> CudaModel:
    """The model of a rank, the first among them; those of all ranks are opened at once.

    Args: before_trial: returns when the weights of all are in place. least: see backends.cuda.peers.Seat. watch: told
        what is to be called when a rank is gone.
    """
    from albireo.backends.cuda.open_rank import open_rank as open_part

    with source.weights(source.graph(start.model_len), start.rank) as weights:
        return open_part(
            start.program,
            weights,
            rank=start.rank,
            size=start.size,
            vocab_size=start.vocab_size,
            device=start.device,
            meeting=start.meeting,
            least=least,
            watch=watch,
            before_trial=before_trial,
            advance=advance,
            **start.options,
        )


if __name__ == "__main__":
    # what is sent has classes of the module, not of the script
    from albireo.api import rank_process

    rank_process.run(int(sys.argv[1]), int(sys.argv[2]))
