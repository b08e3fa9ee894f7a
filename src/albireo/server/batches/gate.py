"""How many lines of all batches run at once: so many that the engine is busy, so few that others find a place.

Used by job.py. Does not know what a line is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

#: Seconds between looks at whether others wait.
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """What a line takes. Fields: num_seats: sequences in the engine; num_bytes: of its body."""

    num_seats: int
    num_bytes: int


class Gate:
    """Those who come are let in in order, so batches that run at the same time take turns.

    Attributes: num_inside: lines.
    """

    def __init__(self, max_seats: int, max_bytes: int, is_open: Callable[[], bool]) -> None:
        """Args: max_seats: sequences inside; max_bytes: bodies inside; is_open: whether anybody may enter now.
        A line that exceeds either alone is let in alone."""
        self._max_seats, self._max_bytes, self._is_open = max_seats, max_bytes, is_open
        self._num_seats = self._num_bytes = self.num_inside = 0
        self._door = asyncio.Lock()
        self._left = asyncio.Event()

    async def enter(self, place: Place) -> None:
        """Returns when there is room. To be followed by leave()."""
        async with self._door:
            while True:
                if not self._is_open():
                    await asyncio.sleep(POLL_S)
                elif not self._has_room(place):
                    self._left.clear()
                    await self._left.wait()
                else:
                    break
            self._num_seats += place.num_seats
            self._num_bytes += place.num_bytes
            self.num_inside += 1

    def leave(self, place: Place) -> None:
        """What entered is done."""
        self._num_seats -= place.num_seats
        self._num_bytes -= place.num_bytes
        self.num_inside -= 1
        self._left.set()

    def _has_room(self, place: Place) -> bool:
        if not self.num_inside:
            return True
        num_seats, num_bytes = self._num_seats + place.num_seats, self._num_bytes + place.num_bytes
        return num_seats <= self._max_seats and num_bytes <= self._max_bytes
