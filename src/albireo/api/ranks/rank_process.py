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

from albireo.api.programs import compile_program
from albireo.api.ranks.rank_start import HERE, PLACED, RankStart, open_rank, prepare, say
from albireo.api.sources.source import ModelSource, guard, open_source
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.passes import hidden_states
from albireo.compiler.rewrite import copy_graph
from albireo.errors import EngineError
from albireo.graph.program import Program

_LOG = logging.getLogger(__name__)


def run(socket: int, lifeline: int) -> None:
    """Obey until the first rank is gone. Args: descriptors. Logs go to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches all processes of a terminal; the first rank decides
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    first = Connection(socket)
    try:
        _obey(first)
    except (EOFError, ConnectionError):
        return
    except EngineError as error:
        _LOG.error("a rank ends: %s", error)
        say(first, {"failed": [type(error).__name__, str(error)]})
    except Exception as error:
        traceback.print_exc()
        say(first, {"failed": [type(error).__name__, (str(error).splitlines() or [""])[0]]})
    sys.exit(1)


def _end_with(lifeline: int) -> None:
    """A rank may wait on its device for one that is gone, and read nothing."""
    os.read(lifeline, 1)
    os._exit(0)


def _obey(first: Connection) -> None:
    start = RankStart.from_json(first.recv_bytes())
    source = open_source(start.directory, start.config)
    program = _program(start, source)
    prepare(start)
    say(first, HERE)

    def placed() -> None:
        say(first, PLACED)
        first.recv_bytes()

    def least(count: int) -> int:
        say(first, count)
        return int(first.recv_bytes())

    models = {0: open_rank(start, source, program, placed, least)}
    from albireo.backends.cuda.orders import argument

    while True:
        number, name, data = json.loads(first.recv_bytes())
        if name == "share":
            models[number] = models[0].sharing(_program(start, source, gives_hidden_states=True))
        else:
            models[number].obey(name, argument(name, data, first.recv_bytes()))


def _program(start: RankStart, source: ModelSource, *, gives_hidden_states: bool = False) -> Program:
    """As api/compiled.py and api/load.py make it for all ranks."""
    config, model_len = start.config, start.config.max_model_len or source.default_model_len
    with guard(source):
        graph = source.graph(model_len)
        if gives_hidden_states:
            graph = copy_graph(graph)
            hidden_states.run(graph)
        return compile_program(graph, config, model_len, source.parts[start.rank], CudaCatalog(start.capability))


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
