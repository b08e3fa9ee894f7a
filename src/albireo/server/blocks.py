"""The text of one answer -> its blocks in order: thoughts, words, calls. For protocols whose answers are lists of such.

Used by response_answer.py and endpoints/messages.py. Does not know how a protocol tells a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallArguments, ToolCallStart
from albireo.parsers.output_parser import OutputParser

Kind = Literal["thought", "text", "call"]


@dataclass(slots=True, eq=False)
class Block:
    """Fields:
    index: among the blocks of the answer.
    call_id, name: of a call.
    is_complete: it was not cut off; known when it has ended.
    """

    index: int
    kind: Kind
    call_id: str = ""
    name: str = ""
    is_complete: bool = True
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it so far; of a call its arguments, as the model wrote them."""
        return "".join(self.parts)

    @property
    def arguments(self) -> dict[str, Any]:
        """Of a call; none when they were cut off."""
        try:
            return msgspec.json.decode(self.text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return {}


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a block. text: what is new of it, where there is more."""

    what: Literal["begin", "more", "end"]
    block: Block
    text: str = ""


class BlockReader:
    """Invariants: 1. changes of one block are begin, more …, end, and no other block's come between; 2. an answer that
    has ended has at least one block, an empty text if need be.

    Attributes: blocks: all so far. has_ended: the whole answer was read.

    Args:
        parser: of this output; None: all of it is text.
        is_one_call: calls after the first are left out.
        hears: given what is thought, told or not.
    """

    def __init__(
        self,
        parser: OutputParser | None,
        *,
        tells_reasoning: bool = True,
        is_one_call: bool = False,
        hears: Callable[[str], None] | None = None,
    ) -> None:
        self.blocks: list[Block] = []
        self.has_ended = False
        self._parser = parser
        self._tells_reasoning = tells_reasoning
        self._is_one_call = is_one_call
        self._hears = hears
        self._open: Block | None = None

    def push(self, text: str, finish_reason: str | None) -> list[Change]:
        """Take what is new of the text. finish_reason: None while it goes on."""
        changes = [change for event in self._events(text, finish_reason) for change in self._take(event)]
        if finish_reason is not None:
            if not self.blocks:
                changes += self._begin("text")
            if self._open is not None and finish_reason == "length":
                self._open.is_complete = False
            changes += self._end()
            self.has_ended = True
        return changes

    def text_of(self, kind: Kind) -> str:
        """The texts of all blocks of a kind."""
        return "".join(block.text for block in self.blocks if block.kind == kind)

    def _events(self, text: str, finish_reason: str | None) -> list[Event]:
        parser = self._parser
        if parser is None:
            return [TextDelta(text)] if text else []
        return [*parser.push(text), *(() if finish_reason is None else parser.finish())]

    def _take(self, event: Event) -> Iterator[Change]:
        if isinstance(event, TextDelta):
            yield from self._more("text", event.text)
        elif isinstance(event, ReasoningDelta):
            if self._hears is not None:
                self._hears(event.text)
            if self._tells_reasoning:
                yield from self._more("thought", event.text)
        elif self._is_one_call and event.index > 0:
            return
        elif isinstance(event, ToolCallStart):
            yield from self._begin("call", event.id, event.name)
        elif isinstance(event, ToolCallArguments):
            yield from self._more("call", event.delta)
        else:
            assert self._open is not None, "a call begins before it ends"
            self._open.is_complete = event.is_complete
            yield from self._end()

    def _more(self, kind: Kind, text: str) -> Iterator[Change]:
        if not text:
            return
        if self._open is None or self._open.kind != kind:
            yield from self._begin(kind)
        assert self._open is not None, "begun"
        self._open.parts.append(text)
        yield Change("more", self._open, text)

    def _begin(self, kind: Kind, call_id: str = "", name: str = "") -> Iterator[Change]:
        yield from self._end()
        self._open = Block(len(self.blocks), kind, call_id, name)
        self.blocks.append(self._open)
        yield Change("begin", self._open)

    def _end(self) -> Iterator[Change]:
        if self._open is not None:
            block, self._open = self._open, None
            yield Change("end", block)
