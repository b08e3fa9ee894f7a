"""What formats have in common that write the name of a function in front of its arguments, and those as JSON.

Used by formats/: which marks are round both is theirs. Arguments go out while they come.
"""

from __future__ import annotations

from typing import Any

from albireo.parsers.events import Event, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.json_scanner import JsonScanner, Status
from albireo.parsers.tool_parser import ToolParser


class NamedJsonParser(ToolParser):
    """See ToolParser."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scanner: JsonScanner | None = None

    def finish(self) -> list[Event]:
        if self._scanner is not None:
            self._out.append(ToolCallEnd(self.num_calls - 1, False))
            self._scanner = None
        return super().finish()

    # -- for the formats -----------------------------------------------------------------------------------------------

    def _begin_arguments(self, name: str, call_id: str | None) -> None:
        """A call begins, with an object at the next character. Args: call_id: if the model wrote one."""
        self._scanner = JsonScanner()
        self._note([ToolCallStart(self.num_calls, call_id or self._new_id(self.num_calls), name)])
        self._state = self._arguments

    def _behind_arguments(self) -> None:
        """The object is over."""
        self._end_call()

    def _arguments(self, buffer: str, pos: int) -> int:
        scanner = self._scanner
        assert scanner is not None, "begun"
        before = scanner.num_scanned
        end = scanner.scan(buffer, pos)
        self.num_scanned += scanner.num_scanned - before
        index = self.num_calls - 1
        self._out.append(ToolCallArguments(index, buffer[pos:end]))
        if scanner.status is not Status.OPEN:
            self._scanner = None
            is_complete = scanner.status is Status.DONE
            self._out.append(ToolCallEnd(index, is_complete))
            if is_complete:
                self._behind_arguments()
            else:
                self._end_call()
        return end
