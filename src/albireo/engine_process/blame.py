"""Who made the engine process die: one request that does so again and again, or nobody that can be told.

Called by client.py when the process has ended. Does not know processes or messages.

A death puts a strike on each request that was being computed, or whose grammar was being compiled. After one death
these are done one by one for a while, so the next one names its cause. A request that moved on since its last strike
was not the cause of that.
SIGKILL comes from outside as a rule, from the kernel that is out of memory or from a person; there a request is given
two deaths more.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from albireo.engine_process.tracked import Strikes, Tracked

#: What ends a process that did nothing wrong.
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
#: Strikes, of which so many alone, after which a request is not run again: for a crash, and for an end from outside.
CRASHES, OUTSIDE = (2, 1), (4, 3)


def guilty(computed: Iterable[Tracked], status: int) -> list[Tracked]:
    """Note a death. Args: computed: who was being computed; status: of the process. Returns: who is not to run again"""
    suspects = list(computed)
    found = []
    for tracked in suspects:
        strikes = tracked.strikes
        if strikes.at != tracked.how_far:
            strikes = tracked.strikes = Strikes(at=tracked.how_far)
        strikes.num += 1
        strikes.num_alone += len(suspects) == 1
        num, num_alone = OUTSIDE if status in FROM_OUTSIDE else CRASHES
        if strikes.num >= num and strikes.num_alone >= num_alone:
            found.append(tracked)
    return found


def is_suspect(tracked: Tracked) -> bool:
    """Whether a death had this request alone, and it has not moved on since."""
    return tracked.strikes.num_alone > 0 and tracked.strikes.at == tracked.how_far


def may_be_guilty(tracked: Tracked) -> bool:
    """Whether it was among those that a death had, and has not moved on since."""
    return tracked.strikes.at == tracked.how_far


def may_move(tracked: Tracked, status: int) -> bool:
    """Whether another engine may go on with a request whose process ended so: not one that may be the cause, which
    would end that engine, too. An end from outside is hardly a request's doing, so there it may once."""
    num_strikes = tracked.strikes.num if tracked.strikes.at == tracked.how_far else 0
    return num_strikes <= (1 if status in FROM_OUTSIDE else 0)
