"""What the parsers of this room have in common: text comes in pieces, and a state says what to make of it.

A state is given a text and a place in it, and returns the place behind what it took. It takes something, or sets
another state, or waits for more text. Does not know what is in the text.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.parsers.events import Event

State = Callable[[str, int], int]


class StateParser:
    """Text in, events out.

    Attributes: num_scanned: characters looked at so far.
    """

    def __init__(self, state: State) -> None:
        self.num_scanned = 0
        self._state = state
        self._out: list[Event] = []
        self._held = ""
        self._waits = False

    def push(self, text: str) -> list[Event]:
        """Take the next piece of text. Returns: what it brings, often nothing."""
        buffer, pos = self._held + text, 0
        self._waits = False
        while pos < len(buffer) and not self._waits:
            before = pos
            pos = self._state(buffer, pos)
            self.num_scanned += pos - before + 1
        self.num_scanned += len(buffer) - pos
        self._held = buffer[pos:]
        return self._taken()

    def _taken(self) -> list[Event]:
        out, self._out = self._out, []
        return out
