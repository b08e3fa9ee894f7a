"""What became of each line, on the disk before it counts, so that whoever comes after a crash knows what is left to do.

Used by job.py. A batch has one file for answers and one for errors, the command run-batch one for both. Does not know
requests or engines.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

from albireo.server.batches.durable import Appended
from albireo.server.protocol.batches import BatchUsage, OutputLine, RequestCounts

_LOG = logging.getLogger("albireo.server")
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(OutputLine)
#: Seconds until a disk that is full, or fails, is tried again.
RETRY_S = 5.0
#: Of each line.
_BEGINNING = b'{"id":"batch_req_'


class _Tokens(msgspec.Struct):
    """`usage` of any endpoint's answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens_details: dict[str, int] | None = None
    input_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None
    output_tokens_details: dict[str, int] | None = None


class _Body(msgspec.Struct):
    usage: _Tokens | None = None


_BODY = msgspec.json.Decoder(_Body)


@dataclass(slots=True)
class _Put:
    line: OutputLine
    data: bytes
    is_failure: bool
    written: asyncio.Future[None]


class Results:
    """Invariants: a line that is in `done` is in a file, on the disk, once; lines are added, never changed.

    Attributes:
        done: custom_ids of the lines that are over.
        counts, usage: of these; counts.total is the owner's.
    """

    def __init__(
        self,
        output: Path,
        errors: Path,
        counts: RequestCounts,
        usage: BatchUsage,
        *,
        is_ours: bool = True,
    ) -> None:
        """Open the files, or make them, and read what is there; blocks. Args: errors: may be the same as output;
        is_ours: no one else writes there, so that all that follows a torn line is a crash's. Raises: OSError;
        NotOurs when they hold something else."""
        self.done: set[str] = set()
        self.counts, self.usage = counts, usage
        counts.completed = counts.failed = usage.input_tokens = usage.output_tokens = usage.total_tokens = 0
        usage.input_tokens_details, usage.output_tokens_details = {"cached_tokens": 0}, {"reasoning_tokens": 0}
        self._pending: list[_Put] = []
        self._writing: asyncio.Task[None] | None = None
        paths = [output] if output == errors else [output, errors]
        self._files = [Appended(path, self._read(path, is_ours)) for path in paths]

    def _read(self, path: Path, is_ours: bool) -> int:
        """Note the lines of a file. Returns: how many of its bytes are whole lines."""
        num_bytes = number = 0
        try:
            file = open(path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return 0
        with file:
            for number, data in enumerate(file, 1):
                line = _decoded(data)
                if line is None:
                    is_torn = not data.endswith(b"\n") and data[: len(_BEGINNING)] == _BEGINNING[: len(data)]
                    if not (is_torn or is_ours):
                        raise NotOurs(number)
                    break
                self._note(line)
                num_bytes += len(data)
            else:
                return num_bytes
        _LOG.warning("line %d of %s was torn by a crash; it is cut off and run again", number, path.name)
        return num_bytes

    def _note(self, line: OutputLine) -> None:
        self.done.add(line.custom_id)
        if _is_failure(line):
            self.counts.failed += 1
            return
        self.counts.completed += 1
        assert line.response is not None, "no failure"
        try:
            tokens = _BODY.decode(line.response.body).usage
        except msgspec.DecodeError:
            return
        if tokens is not None:
            self._add(tokens)

    def _add(self, tokens: _Tokens) -> None:
        usage = self.usage
        usage.input_tokens += tokens.prompt_tokens + tokens.input_tokens
        usage.output_tokens += tokens.completion_tokens + tokens.output_tokens
        usage.total_tokens = usage.input_tokens + usage.output_tokens
        read = tokens.prompt_tokens_details or tokens.input_tokens_details or {}
        usage.input_tokens_details["cached_tokens"] += read.get("cached_tokens", 0)
        thought = tokens.completion_tokens_details or tokens.output_tokens_details or {}
        usage.output_tokens_details["reasoning_tokens"] += thought.get("reasoning_tokens", 0)

    # -- adding --------------------------------------------------------------------------------------------------------

    async def put(self, line: OutputLine) -> None:
        """Returns when it counts. Lines that come together are synced together."""
        written = asyncio.get_running_loop().create_future()
        self._pending.append(_Put(line, _ENCODER.encode(line) + b"\n", _is_failure(line), written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await written

    async def _write(self) -> None:
        try:
            while self._pending:
                taken, self._pending = self._pending, []
                await self._until_written(taken)
                for each in taken:
                    self._note(each.line)
                    if not each.written.done():  # its job was cancelled
                        each.written.set_result(None)
        finally:
            self._writing = None

    async def _until_written(self, taken: list[_Put]) -> None:
        parts = [
            (file, b"".join(each.data for each in taken if len(self._files) == 1 or each.is_failure == bool(index)))
            for index, file in enumerate(self._files)
        ]
        where, told = parts[0][0].path.parent, None
        while True:
            try:
                await asyncio.to_thread(_append, parts)
            except OSError as error:
                reason = str(error.strerror or error)
                if reason != told:  # a disk may be full for hours: once is said why, and once that it is over
                    told = reason
                    words = "results of a batch cannot be written to %s (%s); tried again every %g s until they are"
                    _LOG.error(words, where, reason, RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            if told is not None:
                _LOG.warning("results of a batch are written to %s again", where)
            return

    async def settled(self, patience_s: float | None = None) -> None:
        """Wait until what was put is in `done`, also where nobody waits for it any more."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=patience_s)

    async def close(self, patience_s: float = 10.0) -> None:
        """Write what was put. What cannot be written in time does not count."""
        await self.settled(patience_s)
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        for file in self._files:
            await asyncio.to_thread(file.close)


class NotOurs(Exception):
    """A file holds something else than answers. Attributes: number: of the line."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is no answer of a batch")
        self.number = number


def _decoded(data: bytes) -> OutputLine | None:
    """A line; None when it is none, or not all of one."""
    try:
        return _DECODER.decode(data) if data.endswith(b"\n") else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _append(parts: list[tuple[Appended, bytes]]) -> None:
    """All of it counts, or nothing does."""
    for file, data in parts:
        if data:
            file.write(data)
    for file, data in parts:
        file.num_bytes += len(data)


def _is_failure(line: OutputLine) -> bool:
    return line.response is None or line.response.status_code != 200
