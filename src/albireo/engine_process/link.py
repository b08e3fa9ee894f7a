"""What an engine process is reached by, whether it runs on this machine (process.py) or on another one (distributed).

Used by client.py, which decides what an end means. Does not know requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from albireo.engine_process.messages import Message


class EngineLink(Protocol):
    """One run of an engine process. It tells of each payload, in order, and once, after the last, of the end."""

    @property
    def pid(self) -> int | None:
        """Of the process, once it was started and if it is on this machine."""
        ...

    async def start(self) -> None:
        """Start the process and wait until it can be spoken to, or has ended."""
        ...

    def send(self, message: Message) -> None:
        """Tell the process; what it no longer hears is lost."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...

    async def ended(self) -> None:
        """Wait for its end."""
        ...


#: Makes a link that was not started yet, from what it is to call with each payload, and with the end: the exit status
#: (negative: the signal) and the tickets of the requests that were being computed.
Launch = Callable[[Callable[[bytes], None], Callable[[int, list[int]], None]], EngineLink]
