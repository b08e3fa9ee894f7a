"""The engine, and what becomes of a step that fails: the guilty sequence ends, the others do not notice.

Called by driver.py and by the engine process, from one thread at a time. Does not know text, callers or threads.

A failed step is tried once more, since nothing of it was kept. If it fails again, the guilty sequence is the one its
error names; if it names none, it is found by computing beginnings of the step: of the shortest that fails, the last
one. Beginnings, since a sequence may read blocks that one before it writes in the same step. Computing them changes
nothing: the same bits go into the same slots.

A device that is out of memory is another matter: as a rule nobody is to blame. The step is tried once more without the
last sequence of it, which sits that step out; if the device is still out of memory, that one ends, or those that the
error names, and the others go on. Where the GPU is lost to the process, or a process of several that compute the model
is gone, nothing is tried: the error is for whoever can load the model again.

Parameters that leave no token to draw are nobody's fault but their caller's: that sequence ends at once, and one line
says so.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable

from albireo.engine.engine import Engine
from albireo.engine.kept_prefixes import BlockFiles
from albireo.engine.request import SequenceUpdate
from albireo.engine.settings import EngineSettings
from albireo.errors import DeviceLost, InvalidParams, OutOfMemory
from albireo.speculative.proposer import Method
from albireo.step import StepPlan, StepResult

_LOG = logging.getLogger(__name__)
_SEQUENCE = re.compile(r"\bsequence (\d+)\b")


class GuardedEngine:
    """Invariant: step() never raises what execute() raised, but for DeviceLost; whoever is to blame has an update with
    reason "error".

    Attributes:
        engine: requests are added, aborted and finished there.
    """

    def __init__(
        self,
        settings: EngineSettings,
        execute: Callable[[StepPlan], StepResult],
        clock: Callable[[], float] = time.monotonic,
        method: Method | None = None,
        files: BlockFiles | None = None,
    ) -> None:
        """Args: as Engine has them."""
        self.engine = Engine(settings, self._noting, clock, method, files)
        self._execute = execute
        self._plan: StepPlan | None = None

    def step(self) -> list[SequenceUpdate]:
        """Engine.step(), or the ends of those that it failed for. Raises: DeviceLost."""
        self._plan = None
        left_out = None
        try:
            return self.engine.step()
        except DeviceLost:
            raise
        except OutOfMemory as error:
            left_out = self.engine.leave_out_last()
            _LOG.warning("a step is tried once more, without its last sequence: %s", error)
        except InvalidParams as error:
            _LOG.warning("a request ends, since it asks for what cannot be: %s", error)
            updates = self._end(self._named(error), error)
            if updates:
                return updates
        except Exception as error:
            _LOG.warning("a step failed and is tried once more: %s", error)
        try:
            return self.engine.step()
        except DeviceLost:
            raise
        except OutOfMemory as error:
            _LOG.error("a step failed twice: %s", error)
            last = left_out or self.engine.leave_out_last()
            owners = self._named(error) or ([] if last is None else [last])
            return self._end(owners, error) or self._end_guilty(error)
        except Exception as error:
            _LOG.error("a step failed twice", exc_info=error)
            return self._end_guilty(error)

    def _noting(self, plan: StepPlan) -> StepResult:
        self._plan = plan
        return self._execute(plan)

    def _end_guilty(self, error: Exception) -> list[SequenceUpdate]:
        updates = self._end(self._named(error), error)
        if not updates and self._plan is not None:
            updates = self._end(self._owners(_first_guilty(self._plan, self._execute)), error)
        # It failed before there was a plan: nothing can be told apart.
        return updates or self._end(self.engine.continuations(), error)

    def _named(self, error: Exception) -> list[tuple[str, int]]:
        """Whom an error names, in front of what it says of them: that may hold text of a request, as "sequence 7"."""
        names, _, said = str(error).partition(": ")
        found = _SEQUENCE.findall(names) or _SEQUENCE.findall(said)
        return self._owners(int(seq_id) for seq_id in found)

    def _owners(self, seq_ids: Iterable[int]) -> list[tuple[str, int]]:
        owners = (self.engine.owner(seq_id) for seq_id in seq_ids)
        return [owner for owner in owners if owner is not None]

    def _end(self, owners: Iterable[tuple[str, int]], error: Exception) -> list[SequenceUpdate]:
        reason = f"{type(error).__name__}: {error}"
        return [
            update for request_id, index in owners for update in self.engine.finish(request_id, index, "error", reason)
        ]


def beginning(plan: StepPlan, num: int) -> StepPlan:
    """The same step with the first num of its sequences only."""
    return plan.part(plan.work[:num], has_moves=True)


def _first_guilty(plan: StepPlan, execute: Callable[[StepPlan], StepResult]) -> list[int]:
    """Sequences of the work with which a step begins to fail. Cost: log2(sequences) executions."""
    passes, fails = 0, len(plan.work)
    while fails - passes > 1:
        middle = (passes + fails) // 2
        try:
            execute(beginning(plan, middle))
        except DeviceLost:
            raise
        except Exception:
            fails = middle
        else:
            passes = middle
    guilty = plan.work[fails - 1] if fails else None
    return [] if guilty is None else list(dict.fromkeys([*(task.seq_id for task in guilty.samples), guilty.seq_id]))
