"""python -m albireo.api.ranks.rank_process SOCKET LIFELINE: one rank of a model on several GPUs, but the first.

Started by rank_processes.py, which is told what the first rank does. It opens its own part of the weights, meets the
others where sums need all, and obeys. Knows no requests. Ends when the first rank is gone, whatever it waits for then.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from albireo.api.ranks.rank_models import FURTHER, RankModels
from albireo.api.ranks.rank_start import HERE, PLACED, SLOTS, RankStart, open_rank, prepare, say
from albireo.api.sources.source import open_source
from albireo.errors import EngineError

_LOG = logging.getLogger(__name__)


def run(socket: int, lifeline: int) -> None:
    """Obey until the first rank is gone. Args: descriptors. Logs go to stderr."""
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach all processes of a terminal; the first rank decides
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    status = _status(Connection(socket))
    logging.shutdown()
    # an interpreter that ends takes NCCL down, which waits for recordings, and for ranks that wait for this one to end
    os._exit(status)


def _status(first: Connection) -> int:
    """Obey. Returns: the process's status."""
    try:
        _obey(first)
    except (EOFError, ConnectionError):
        return 0
    except EngineError as error:
        _LOG.error("a rank ends: %s", error)
        say(first, {"failed": [type(error).__name__, str(error)]})
    except Exception as error:
        traceback.print_exc()
        say(first, {"failed": [type(error).__name__, (str(error).splitlines() or [""])[0]]})
    sys.stderr.flush()
    return 1


def _end_with(lifeline: int) -> None:
    """A rank may wait on its device for one that is gone, and read nothing."""
    os.read(lifeline, 1)
    os._exit(0)


def _obey(first: Connection) -> None:
    start = RankStart.from_json(first.recv_bytes())
    source = open_source(start.directory, start.config)
    models = RankModels(start, source)
    prepare(start)
    say(first, HERE)

    def placed() -> None:
        say(first, PLACED)
        first.recv_bytes()

    def least(count: int) -> int:
        say(first, count)
        return int(first.recv_bytes())

    models.take(open_rank(start, source, models.program, placed, least))
    while True:
        number, name, data = json.loads(first.recv_bytes())
        if name == "slots":
            models.make_slots()
            say(first, SLOTS)
        elif name in FURTHER:
            models.make(number, name)
        else:
            models.obey(number, name, data, first.recv_bytes())


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
