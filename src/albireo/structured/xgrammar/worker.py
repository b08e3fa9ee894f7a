"""The process of xgrammar: `python -m albireo.structured.xgrammar.worker`, with a socket as its standard input.

Started by host.py. It reads the vocabulary once and then forks for each grammar; that process compiles the grammar and
gives its masks until its socket closes. So what hangs, crashes or grows in native code is one grammar's process, with
limits of time and memory that the kernel keeps. What is said over sockets is in wire.py. Does not know requests or
logits.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from albireo.structured.xgrammar import wire
from albireo.structured.xgrammar.native import Library

#: Processor seconds more that a mask may take for each token that has to be read first.
_TOKEN_S = 0.0005


def main() -> None:
    """Serve one host until it closes its socket."""
    descriptor = os.dup(0)
    # Else the processes of grammars would hold the host's socket open.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with socket.socket(fileno=descriptor) as control:
        config = json.loads(wire.receive(control))
        tokens = wire.unpack_tokens(wire.receive(control))
        try:
            library = Library(tokens, config["vocab_size"], config["eos_token_ids"])
        except Exception as error:  # told where it is asked for
            wire.send(control, wire.FAILED, f"{type(error).__name__}: {error}".encode())
            return
        wire.send(control, wire.DONE, b"")
        while True:
            order, descriptors = wire.receive_order(control)
            if order is None:
                return
            if order[0] == wire.END:
                control.sendall(wire.STATUS.pack(_end(order[1])))
                continue
            pid = os.fork()
            if pid == 0:
                control.close()
                with socket.socket(fileno=descriptors[0]) as own:
                    _Grammar(library, config["vocab_size"], config["eos_token_ids"], own).serve()
                os._exit(0)
            os.close(descriptors[0])
            control.sendall(wire.STATUS.pack(pid))


def _end(pid: int) -> int:
    """Kill a process of a grammar, if it lives; its exit status, negative when a signal ended it."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == 0:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        return 0
    return os.waitstatus_to_exitcode(status)


class _Grammar:
    """One grammar, and the state of each sequence in it."""

    def __init__(self, library: Library, vocab_size: int, eos_token_ids: list[int], own: socket.socket) -> None:
        self._library, self._socket = library, own
        self._mask = library.buffer(vocab_size)
        only_eos = bytearray(self._mask.nbytes)
        for token_id in eos_token_ids:
            only_eos[token_id // 8] |= 1 << token_id % 8
        self._only_eos = bytes(only_eos)
        self._states: dict[int, tuple[Any, int]] = {}

    def serve(self) -> None:
        """Compile, then answer until the socket closes."""
        try:
            job = json.loads(wire.receive(self._socket))
            _limit_memory(job["memory_bytes"])
            self._answer(partial(self._begin, job), job["compile_s"])
            while True:
                question = wire.Question.unpack(wire.receive(self._socket))
                self._answer(partial(self._ask, question), job["mask_s"] + _TOKEN_S * len(question.token_ids))
        except (OSError, EOFError):
            return

    def _answer(self, work: Callable[[], tuple[int, bytes]], limit_s: float) -> None:
        # The kernel ends the process by SIGPROF, whatever native code it is in.
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            status, said = work()
        except MemoryError:
            status, said = wire.NO_MEMORY, b""
        except Exception as error:
            status = wire.NO_MEMORY if "bad_alloc" in str(error) else wire.FAILED
            said = f"{error}".encode(errors="replace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        wire.send(self._socket, status, said)

    def _begin(self, job: dict[str, Any]) -> tuple[int, bytes]:
        self._compiled = self._library.compile(job["job"])
        matcher = self._library.matcher(self._compiled)
        matcher.fill_next_token_bitmask(self._mask, 0, False)
        return wire.DONE, self._mask.tobytes()

    def _ask(self, question: wire.Question) -> tuple[int, bytes]:
        for matcher_id in question.dropped:
            self._states.pop(matcher_id, None)
        matcher, num_seen = self._states.pop(question.matcher_id, (None, 0))
        if matcher is not None and 0 < question.num_kept < num_seen:
            # drafts that were only asked about
            matcher.rollback(num_seen - question.num_kept)
            num_seen = question.num_kept
        if matcher is None or question.num_kept != num_seen:
            matcher, num_seen = self._library.matcher(self._compiled), 0
            if question.num_kept:
                return wire.UNKNOWN, b""
        for token_id in question.token_ids:
            if not matcher.accept_token(token_id, False):
                return wire.REFUSED, wire.STATUS.pack(num_seen)
            num_seen += 1
        self._states[question.matcher_id] = matcher, num_seen
        if matcher.is_terminated():
            return wire.DONE, self._only_eos
        matcher.fill_next_token_bitmask(self._mask, 0, False)
        return wire.DONE, self._mask.tobytes()


def _limit_memory(more_bytes: int) -> None:
    """So many bytes more of address space than there are now; nothing where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, now + more_bytes))


if __name__ == "__main__":
    main()
    sys.exit(0)
