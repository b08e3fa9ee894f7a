"""The process of xgrammar as this one sees it: begun when first asked for, and begun anew when it is gone.

Used by backend.py, on threads that compile; a grammar's masks are asked for in steps (matcher.py). Does not know
requests.
"""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.own_python import command_of
from albireo.structured.xgrammar import wire

#: How the worker is started.
COMMAND = command_of("albireo.structured.xgrammar.worker")
#: Seconds that reading the library and a vocabulary may take.
START_S = 120.0
#: Grammars that may be held at one time, each by a process of its own.
MAX_GRAMMARS = 128
#: Wall-clock seconds that a mask may take beyond its processor seconds: others may have the processor.
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one grammar's process.

    Fields:
        compile_s: seconds to compile, by the wall and of the processor.
        mask_s: processor seconds of one mask.
        memory_bytes: what it may need more than the process that all come from.
    """

    compile_s: float
    mask_s: float
    memory_bytes: int


class GrammarProcess:
    """A compiled grammar in its process. Ends when nobody holds it any more.

    Attributes: first_mask: what may begin an output.
    """

    def __init__(self, host: Host, connection: socket.socket, pid: int, limits: Limits) -> None:
        self.first_mask = b""
        self._host, self._connection, self._pid, self._limits = host, connection, pid, limits
        self._lock = threading.Lock()
        self._ids = itertools.count()
        self._dropped: list[int] = []
        self._ended: str | None = None
        # Not __del__: among garbage that refers to itself the socket could be the first to go.
        self._close = weakref.finalize(self, connection.close)

    @property
    def has_ended(self) -> bool:
        """Whether it gives no more masks."""
        return self._ended is not None

    def compile(self, job: dict[str, Any], what: str) -> None:
        """Args: what: the grammar's name in errors. Raises: InvalidParams with the reason when there is no grammar."""
        limits = self._limits
        text = json.dumps(
            {"job": job, "compile_s": limits.compile_s, "mask_s": limits.mask_s, "memory_bytes": limits.memory_bytes}
        )
        too_long = f"takes longer than {limits.compile_s:g} s to compile; make it simpler"
        status, said = self._exchange(text.encode(), limits.compile_s, too_long, f"{what} ")
        if status != wire.DONE:
            raise InvalidParams(f"{what} cannot be used: {_reason(said)}")
        self.first_mask = said

    def matcher_id(self) -> int:
        """A number for a matcher."""
        return next(self._ids)

    def drop(self, matcher_id: int) -> None:
        """Nobody asks this matcher any more."""
        self._dropped.append(matcher_id)

    def mask(self, matcher_id: int, num_kept: int, token_ids: Sequence[int]) -> tuple[int, bytes]:
        """See wire.Question. Returns: status and answer. Raises: InvalidParams when the process ends of it."""
        dropped = [self._dropped.pop() for _ in range(len(self._dropped))]
        question = wire.Question(matcher_id, num_kept, dropped, token_ids)
        limit_s = self._limits.mask_s
        return self._exchange(
            question.pack(), limit_s + PATIENCE_S, f"its mask takes longer than {limit_s:g} s of the processor"
        )

    def close(self) -> None:
        """End the process, which reads that its socket is closed."""
        self._ended = self._ended or "it was closed"
        self._close()

    def _exchange(self, payload: bytes, wait_s: float, too_long: str, name: str = "") -> tuple[int, bytes]:
        """Ask and wait for the answer. A process that gives none is ended, and says why from then on."""
        with self._lock:
            if self._ended is not None:
                raise InvalidParams(f"{name}{self._ended}")
            try:
                self._connection.settimeout(wait_s)
                wire.ask(self._connection, payload)
                status, said = wire.receive_answer(self._connection)
            except (OSError, EOFError) as error:
                code = self._host.end(self._pid)
                is_late = isinstance(error, TimeoutError) or code == -signal.SIGPROF
                self._ended = too_long if is_late else f"ended xgrammar's process ({_exit(code)}); make it simpler"
            else:
                if status != wire.NO_MEMORY:
                    return status, said
                self._host.end(self._pid)
                self._ended = f"needs more memory than {self._limits.memory_bytes >> 20} MiB; make it simpler"
            self._close()
            raise InvalidParams(f"{name}{self._ended}")


class Host:
    """Threads may share it. Invariant: a process that ends, or is ended, takes along nothing but its own grammar."""

    def __init__(self, tokens: Sequence[bytes], vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        self._config = json.dumps({"vocab_size": vocab_size, "eos_token_ids": list(eos_token_ids)}).encode()
        self._tokens = wire.pack_tokens(tokens)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._close: weakref.finalize[..., Host] | None = None
        self._alive: weakref.WeakSet[GrammarProcess] = weakref.WeakSet()

    @property
    def pid(self) -> int | None:
        """Of the process that all grammars' come from, once it was begun."""
        return None if self._process is None else self._process.pid

    def grammar(self, job: dict[str, Any], what: str, limits: Limits) -> GrammarProcess:
        """Compile a grammar in a process of its own.

        Raises: InvalidParams when it cannot be used, passes a limit, or too many are held; UnsupportedFeature when the
            library cannot be used.
        """
        with self._lock:
            num_alive = sum(not each.has_ended for each in self._alive)
            if num_alive >= MAX_GRAMMARS:
                raise InvalidParams(f"{what}: xgrammar holds {num_alive} grammars, which is its limit; try again later")
            own, other = socket.socketpair()
            try:
                with other:
                    pid = self._begin(other)
            except BaseException:
                own.close()
                raise
            made = GrammarProcess(self, own, pid, limits)
            self._alive.add(made)
        try:
            made.compile(job, what)
        except BaseException:
            made.close()
            raise
        return made

    def end(self, pid: int) -> int:
        """End a grammar's process; its exit status, negative when a signal ended it, 0 when that is not known."""
        with self._lock:
            try:
                return 0 if self._control is None else wire.order(self._control, wire.END, pid)
            except (OSError, EOFError):
                return 0

    def close(self) -> None:
        """End the process that all come from; those that hold a grammar end when nobody holds them."""
        if self._close is not None:
            self._close()
        self._control = self._process = self._close = None

    def _begin(self, descriptor: socket.socket) -> int:
        for _ in range(2):
            if self._control is None:
                self._start()
            assert self._control is not None, "started"
            try:
                return wire.order(self._control, wire.BEGIN, descriptor=descriptor.fileno())
            except (OSError, EOFError):
                self.close()  # somebody ended it: once more, with a new one
        raise UnsupportedFeature("structured_outputs: xgrammar's process ends when it is asked for a grammar")

    def _start(self) -> None:
        own, other = socket.socketpair()
        quiet = subprocess.DEVNULL
        with other:  # what the library prints may hold text of requests
            self._process = subprocess.Popen(COMMAND, stdin=other.fileno(), stdout=quiet, stderr=quiet)
        self._control = own
        self._close = weakref.finalize(self, _end, own, self._process)
        own.settimeout(START_S)
        try:
            wire.ask(own, self._config)
            wire.ask(own, self._tokens)
            status, said = wire.receive_answer(own)
        except (OSError, EOFError) as error:
            self.close()
            raise UnsupportedFeature(f"structured_outputs: xgrammar's process does not begin: {error!r}") from None
        if status != wire.DONE:
            self.close()
            raise UnsupportedFeature(f"structured_outputs: xgrammar cannot be used: {_reason(said)}")


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.kill()
    process.wait()


def _exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def _reason(said: bytes) -> str:
    """The library's message: its last line, without the place in its own source."""
    lines = [line for line in said.decode(errors="replace").split("\n") if line.strip()]
    text = lines[-1] if lines else "no reason given"
    return " ".join(text.rpartition(".cc:")[2].split())[:300]
