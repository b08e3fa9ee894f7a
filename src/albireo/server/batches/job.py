"""Runs the lines of one file that have no result yet.

Used by runner.py and by the command run-batch. Does not know states of batches.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice

import msgspec

from albireo.server.batches.gate import Gate, Place
from albireo.server.batches.inside import Answered, Inside
from albireo.server.batches.lines import Line
from albireo.server.batches.request import num_seats, request_body
from albireo.server.batches.results import Results
from albireo.server.errors import HttpError
from albireo.server.protocol.batches import LineAnswer, LineError, OutputLine

#: Lines that are read at once; of long ones less.
_NUM_AT_ONCE, _BYTES_AT_ONCE = 256, 1 << 20
#: Seconds until a line that was not taken is tried again.
RETRY_S = 0.5


class Job:
    """Runs lines. Cancelling run() ends those that run; their results do not count."""

    def __init__(
        self,
        lines: Callable[[], Iterator[Line]],
        results: Results,
        inside: Inside,
        gate: Gate,
        is_ending: Callable[[], bool],
    ) -> None:
        """Args: lines: reads them from the first one on; is_ending: what fails from now on fails because of the
        server's end."""
        self._lines, self._results, self._inside, self._gate = lines, results, inside, gate
        self._is_ending = is_ending

    async def run(self) -> None:
        """Run all that have no result. Raises: BadLine, OSError when the file is not what it was."""
        async with asyncio.TaskGroup() as tasks:
            async for lines in self._left():
                for line in lines:
                    place = Place(num_seats(line), len(line.body))
                    await self._gate.enter(place)
                    tasks.create_task(self._one(line, place))

    async def skip(self, code: str, message: str) -> None:
        """Say of all that have no result why they have none."""
        await self._results.settled()
        async for lines in self._left():
            skipped = [OutputLine(_name(), line.custom_id, None, LineError(code, message)) for line in lines]
            await asyncio.gather(*map(self._results.put, skipped))

    async def _left(self) -> AsyncIterator[list[Line]]:
        """Lines without a result, some at a time."""
        lines, done = self._lines(), self._results.done
        while found := await asyncio.to_thread(_some, lines):
            yield [line for line in found if line.custom_id not in done]

    async def _one(self, line: Line, place: Place) -> None:
        try:
            answered = await self._answer(line)
            name = _name()
            request_id = answered.headers.get("x-request-id", name)
            said = LineAnswer(answered.status, request_id, msgspec.Raw(answered.body))
            await self._results.put(OutputLine(name, line.custom_id, said, None))
        finally:
            self._gate.leave(place)

    async def _answer(self, line: Line) -> Answered:
        try:
            body = request_body(line)
        except HttpError as error:
            return Answered(error.status, {}, msgspec.json.encode(error.body()))
        while not self._is_final(answered := await self._inside.post(line.url, body)):
            await asyncio.sleep(RETRY_S)
        return answered

    def _is_final(self, answered: Answered) -> bool:
        """Whether it is the line's answer; not one that says that the server is busy, or ends."""
        if answered.status in (0, 429, 503):
            return False
        return answered.status < 500 or not self._is_ending()


def _some(lines: Iterator[Line]) -> list[Line]:
    """The next lines."""
    found, num_bytes = [], 0
    for line in islice(lines, _NUM_AT_ONCE):
        found.append(line)
        num_bytes += len(line.body)
        if num_bytes >= _BYTES_AT_ONCE:
            break
    return found


def _name() -> str:
    return f"batch_req_{uuid.uuid4().hex}"
