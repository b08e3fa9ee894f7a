"""Stop strings across token boundaries: which text may go out now, and whether a stop string ended it.

Called by api for each sequence. Does not know tokens.

A stop string matches as soon as its last character is there, however the text was cut into increments: the match
that ends first wins; among those that end together, the first in the list. This is what vLLM gives when every token
is one character, and never depends on how many characters a token has.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Invariants:
    1. what push() and flush() returned so far + what is held == all text pushed, until a stop string matches;
    2. the held text is the longest end of the text that could begin a stop string; nothing else waits;
    3. with include_stop_str_in_output nothing is held: all of a stop string is output anyway.

    Attributes:
        matched: the stop string that ended the text, or None.
    """

    def __init__(self, stops: Sequence[str], include_stop_str_in_output: bool = False) -> None:
        self._stops = tuple(stops)
        self._include = include_stop_str_in_output
        self._reach = max((len(stop) for stop in self._stops), default=1) - 1
        # The last _reach characters of all text: where a match may have begun.
        self._tail = ""
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str, may_stop: bool = True) -> str:
        """Take the next increment.

        Args:
            may_stop: False while fewer than min_tokens are out: a stop string that ends in this increment is text
                like any other. One that begins here and ends later counts.

        Returns: the text that may go out; after a match, the last of it.
        Cost: O(len(text) + stops * longest stop).
        """
        assert self.matched is None, "text after a stop string"
        if not self._stops:
            return text
        found = self._find(text) if may_stop else None
        if found is not None:
            return self._finish(text, *found)
        seen = self._tail + text
        self._tail = seen[-self._reach :] if self._reach else ""
        if self._include:
            return text
        waiting = self._held + text
        keep = self._could_begin(waiting)
        self._held = waiting[len(waiting) - keep :]
        return waiting[: len(waiting) - keep]

    def flush(self) -> str:
        """The text still held, when nothing more comes; nothing after a match."""
        held, self._held = self._held, ""
        return held

    def _find(self, text: str) -> tuple[int, str] | None:
        """Where in text the first match ends, and which stop string it is."""
        seen = self._tail + text
        best: tuple[int, str] | None = None
        for stop in self._stops:
            # Only what ends in the new text: the rest was searched before.
            start = seen.find(stop, max(0, len(self._tail) - len(stop) + 1))
            if start >= 0:
                end = start + len(stop) - len(self._tail)
                if best is None or end < best[0]:
                    best = end, stop
        return best

    def _finish(self, text: str, end: int, stop: str) -> str:
        self.matched = stop
        waiting = self._held + text[:end]
        self._held = ""
        return waiting if self._include else waiting[: len(waiting) - len(stop)]

    def _could_begin(self, text: str) -> int:
        """Length of the longest end of text that is the beginning of a stop string."""
        for length in range(min(self._reach, len(text)), 0, -1):
            ending = text[len(text) - length :]
            if any(stop.startswith(ending) for stop in self._stops):
                return length
        return 0
