"""Who made the engine process die: one request that does so again and again, or nobody that can be told.

Called by client.py when the process has ended. Does not know processes or messages.

A death puts a strike on each request that was being computed. After one death sequences are computed one by one for a
while, so the next one names its cause. A request that moved on since its last strike was not the cause of that.
SIGKILL comes from outside as a rule, from the kernel that is out of memory or from a person; there a request is given
one death more.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from albireo.engine_process.tracked import Strikes, Tracked

_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


def guilty(computed: Iterable[Tracked], status: int) -> list[Tracked]:
    """Note a death. Args: computed: who was being computed; status: of the process. Returns: who is not to run again"""
    suspects = list(computed)
    found = []
    for tracked in suspects:
        strikes = tracked.strikes
        if strikes.at != tracked.num_output_tokens:
            strikes = tracked.strikes = Strikes(at=tracked.num_output_tokens)
        strikes.num += 1
        strikes.num_alone += len(suspects) == 1
        num_alone, num = (2, 3) if status in _FROM_OUTSIDE else (1, 2)
        if strikes.num_alone >= num_alone and strikes.num >= num:
            found.append(tracked)
    return found
