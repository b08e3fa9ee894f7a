"""Server-sent events out of bytes that may be split anywhere, as the HTML standard defines them.

Used by client.py. Does not know what the data means.
"""

from __future__ import annotations

_END = b"\n\n"
_PREFIX = b"data: "


class EventParser:
    """Bytes in, the data of complete events out; comments and fields other than data are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Data of the events that this chunk completes, each with its lines joined by newlines."""
        if not self._rest and not self._data and chunk.startswith(_PREFIX) and chunk.find(_END) == len(chunk) - 2:
            line = chunk[len(_PREFIX) : -2]
            # One whole event of one line, which is what servers write nearly always.
            if b"\n" not in line and b"\r" not in line:
                return [line]
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = b""
        # A line without its end waits for it; so does one that ends in CR, as its LF may be still to come.
        if lines and not lines[-1].endswith(b"\n"):
            self._rest = lines.pop()
        return [event for line in lines if (event := self._line(line.rstrip(b"\r\n"))) is not None]

    def finish(self) -> list[bytes]:
        """Data of what the stream ended in without the blank line behind it: the standard drops it, servers mean it."""
        last, self._rest = self._rest.rstrip(b"\r\n"), b""
        if last:
            self._line(last)
        event = self._line(b"")
        return [] if event is None else [event]

    def _line(self, line: bytes) -> bytes | None:
        """Take one line; a blank one ends an event."""
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data = []
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None
