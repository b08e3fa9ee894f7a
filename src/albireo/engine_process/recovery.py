"""After a death: every request to the next process, sequences one by one until each that was being computed got on,
suspects at the end.

Used by client.py. Does not know why the process died (blame.py) or how it is started.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from albireo.engine_process.blame import is_suspect, may_be_guilty
from albireo.engine_process.link import EngineLink
from albireo.engine_process.messages import Careful
from albireo.engine_process.tracked import Tracked


class Recovery:
    """Invariant: the process computes carefully from resume() on until the last request that may have ended the one
    before got on or is over. Others, a long line that waits among them, are no reason to be slow."""

    def __init__(self) -> None:
        self._died_s = 0.0
        self._open: set[int] = set()
        self._suspects: list[tuple[int, Tracked]] = []

    def died(self) -> None:
        """The process is gone."""
        self._died_s = time.monotonic()
        self._open.clear()

    def resume(self, process: EngineLink, requests: Iterable[Tracked]) -> None:
        """Give a new process all there is to do. Those that seem to have killed the last one by themselves wait until
        all others have got on, and then come one after the other."""
        requests = list(requests)
        self._suspects = [(tracked.ticket, tracked) for tracked in requests if is_suspect(tracked)]
        process.send(Careful(True))
        for tracked in requests:
            if not is_suspect(tracked):
                self._give(process, tracked)
        self._go_on(process)

    def note_lost_time(self, tracked: Tracked) -> None:
        """A request gets a process, or leaves for another engine, now."""
        tracked.times.restarts_s += time.monotonic() - max(self._died_s, tracked.times.arrival_s)

    def moved_on(self, process: EngineLink, ticket: int) -> None:
        """A request got on, or is over, or was released."""
        if ticket in self._open:
            self._open.discard(ticket)
            self._go_on(process)

    def _go_on(self, process: EngineLink) -> None:
        while not self._open and self._suspects:
            ticket, suspect = self._suspects.pop(0)
            if suspect.ticket == ticket and not suspect.is_over:
                self._give(process, suspect)
        if not self._open:
            process.send(Careful(False))

    def _give(self, process: EngineLink, tracked: Tracked) -> None:
        tracked.num_restarts += 1
        self.note_lost_time(tracked)
        process.send(tracked.add_message())
        if may_be_guilty(tracked):
            self._open.add(tracked.ticket)
