"""RankProcesses: the processes of all ranks of a model on several GPUs but the first, which runs in this one.

Used by cuda_device.py. They are started, told what the first rank does, and watched: when one is gone, nothing of the
model goes on, and whoever waits is told. Does not know what a step is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo import errors
from albireo.api.ranks.rank_start import HERE, PLACED, SLOTS, RankStart
from albireo.errors import ConfigError, EngineError, RankLost
from albireo.graph.program import Program
from albireo.own_python import command_of

if TYPE_CHECKING:
    from albireo.backends.cuda.orders import Further

_LOG = logging.getLogger(__name__)

#: How one is started; descriptors of its socket and of its lifeline follow.
COMMAND = command_of("albireo.api.ranks.rank_process")
#: Seconds that processes have to end by themselves.
_TO_END_S = 5.0


class RankProcesses:
    """Invariants: 1. every rank does the same in the same order, or all end; 2. none outlives this process.

    Fields: directory: of this run, for the file by which ranks meet; gone with the processes.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="albireo-ranks-"))
        self._command = tuple(command)
        self._links: list[Connection] = []
        self._run = _Run()
        self._num_models = 1
        self._finalizer = weakref.finalize(self, _end, self._links, self._run, self.directory)

    def start(self, starts: Sequence[RankStart]) -> None:
        """Start one process each, and wait until all can be reached.

        Raises: RankLost; the error of a rank that cannot begin.
        """
        for start in starts:
            ours, theirs = Pipe()
            lifeline, end = os.pipe()
            self._links.append(ours)
            self._run.lifelines.append(end)
            process = subprocess.Popen(
                [*self._command, str(theirs.fileno()), str(lifeline)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
            )
            theirs.close()
            os.close(lifeline)
            self._run.processes.append(process)
            threading.Thread(target=_watch, args=(self._run, start.rank, process), daemon=True).start()
            self._send(ours, start.to_json())
        self._expect(HERE)

    def watch(self, on_lost: Callable[[], None], at_end: Callable[[], None]) -> None:
        """Have on_lost called, from a thread, when a rank is gone unasked; and at_end when all are to end, before the
        directory is gone."""
        self._run.on_lost, self._run.at_end = on_lost, at_end

    def placed(self) -> None:
        """Wait until the weights of all are in place. Raises: as start()."""
        self._expect(PLACED)
        self._tell(b"")

    def least(self, count: int) -> int:
        """Of a number of each rank, this one's among them. Raises: as start()."""
        found: int = min(count, *(self._receive(rank) for rank in range(len(self._links))))
        self._tell(str(found).encode())
        return found

    def share(self, what: Further) -> int:
        """See backends.cuda.orders.Leader."""
        number, self._num_models = self._num_models, self._num_models + 1
        self._tell(json.dumps([number, what, None]).encode())
        return number

    @contextmanager
    def making_slots(self) -> Iterator[None]:
        """See backends.cuda.orders.Leader."""
        try:
            self._tell(json.dumps([0, "slots", None]).encode())
            yield
            self._expect(SLOTS)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def together(self, number: int, name: str, arg: Any) -> Iterator[None]:
        """See backends.cuda.orders.Leader."""
        self.check()
        from albireo.backends.cuda.orders import plain

        data, words = plain(name, arg)
        self._tell(json.dumps([number, name, data]).encode(), words)
        try:
            yield
        except BaseException as error:
            # what the others have begun waits for this one
            if isinstance(error, RankLost):
                self._run.told.wait(_TO_END_S)  # whoever watches knows which, and how
            self._run.lose(f"rank 0 failed in what all do: {type(error).__name__}: {error}")
            self.close()
            if not isinstance(error, Exception):
                raise
            raise RankLost(self._run.lost) from error

    def check(self) -> None:
        """Raises: RankLost when a rank is gone."""
        if self._run.lost:
            raise RankLost(self._run.lost)

    def close(self) -> None:
        """End all processes. May be called again."""
        self._finalizer()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._run.processes]

    def _expect(self, word: str) -> None:
        for rank in range(len(self._links)):
            found = self._receive(rank)
            assert found == word, (found, word)

    def _receive(self, place: int) -> Any:
        try:
            found = json.loads(self._links[place].recv_bytes())
        except (EOFError, OSError):
            self._wait_for_end(place)
            raise RankLost(self._run.lost or f"rank {place + 1} is gone") from None
        if isinstance(found, dict):
            name, message = found["failed"]
            self.close()
            kind = getattr(errors, name, None)
            if isinstance(kind, type) and issubclass(kind, EngineError):
                raise kind(f"rank {place + 1}: {message}")
            raise EngineError(f"rank {place + 1}: {name}: {message}")
        return found

    def _tell(self, *messages: bytes) -> None:
        for link in self._links:
            self._send(link, *messages)

    def _send(self, link: Connection, *messages: bytes) -> None:
        try:
            for message in messages:
                link.send_bytes(message)
        except OSError:
            self._wait_for_end(self._links.index(link))
            raise RankLost(self._run.lost or f"rank {self._links.index(link) + 1} is gone") from None

    def _wait_for_end(self, place: int) -> None:
        """Its link is closed; whoever watches says how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._run.processes[place].wait(_TO_END_S)
        self._run.told.wait(_TO_END_S)


class _Run:
    """What the threads that watch share with RankProcesses, which may be let go before them."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.lifelines: list[int] = []
        self.on_lost: Callable[[], None] = lambda: None
        self.at_end: Callable[[], None] = lambda: None
        self.lost, self.is_closing = "", False
        self.told = threading.Event()

    def lose(self, why: str) -> None:
        self.lost = self.lost or f"{why}; the model is to be loaded again"
        self.told.set()


def _watch(run: _Run, rank: int, process: subprocess.Popen[bytes]) -> None:
    status = process.wait()
    if run.is_closing:
        return
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    _LOG.error("rank %d ended %s", rank, how)
    run.lose(f"rank {rank} ended {how}")
    run.on_lost()


def _end(links: Sequence[Connection], run: _Run, directory: Path) -> None:
    run.is_closing = True
    for link in links:
        link.close()
    for lifeline in run.lifelines:
        os.close(lifeline)
    try:
        run.at_end()
    except Exception:
        _LOG.exception("the first rank did not end as it should")
    run.on_lost = run.at_end = lambda: None  # which hold what is gone
    for process in run.processes:
        try:
            process.wait(_TO_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(directory, ignore_errors=True)


def require_gpus(size: int, found: int) -> None:
    """Raises: ConfigError where there are fewer GPUs than ranks."""
    if found < size:
        raise ConfigError(
            f"tensor_parallel_size={size}, and {found} GPU{'s' * (found != 1)} can be used here; each rank needs one "
            f"of its own, on this machine: lower it to {1 << (max(1, found).bit_length() - 1)}, or use --device cpu"
        )


def whole_vocabulary(programs: Sequence[Program]) -> int:
    """Entries of the head, of which the programs of ranks have parts; 0 where there are no logits."""
    return sum(program.buffers[program.outputs["logits"]].cols for program in programs if "logits" in program.outputs)
