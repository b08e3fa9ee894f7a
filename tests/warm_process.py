"""python warm_process.py SOCKET: a process that has imported what a server and its engine process import, and is copied
whenever such a process is wanted; and what asks for copies.

Importing is most of what a server's start costs, and tests start them by the dozen. A copy has its own arguments,
environment, working directory, stderr and signals, and runs what the interpreter would run. Its engine process is a
copy of it in turn, where it is begun before there are threads (cli/serve.py); any later one is started as ever. What is
missing among imports shows in servers that are started from nothing (server/conftest.py, server/test_life.py).

Linux alone: a copy is handed to whoever asked as a child, to wait for and to read the status of.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

#: Imported beforehand: what a server of the bundled model has imported once it answers, and its engine process.
_MODULES = ("albireo.cli.serve", "albireo.server.run", "albireo.engine_process.worker")
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.01


class Child:
    """A child of this process that somebody else started; as subprocess.Popen, whose names these are."""

    def __init__(self, pid: int, args: Sequence[str], stderr: Any = None) -> None:
        self.pid, self.args, self.stderr = pid, list(args), stderr
        self.returncode: int | None = None
        self._waiting = threading.Lock()

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG) if self._waiting.acquire(blocking=False) else self.returncode

    def _reap(self, options: int) -> int | None:
        """Under the lock, which this gives back."""
        try:
            if self.returncode is None and (found := os.waitpid(self.pid, options))[0]:
                self.returncode = os.waitstatus_to_exitcode(found[1])
            return self.returncode
        finally:
            self._waiting.release()

    def wait(self, timeout: float | None = None) -> int:
        if timeout is None:
            self._waiting.acquire()
            code = self._reap(0)
            assert code is not None
            return code
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(_LOOK_S)
        return code

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmProcess:
    """The process of this file, and its copies: children of the process that this is made in."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> socket.socket:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        asking, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, __file__, str(other.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[other.fileno()], env=self._environment)
        return asking

    def can_be(self, environment: dict[str, str], but: Sequence[str]) -> bool:
        """Whether a process of such an environment imports the same. but: variables that nothing reads so early."""
        names = {name for name in self._environment.keys() | environment.keys() if not name.startswith("PYTEST_")}
        return all(self._environment.get(name) == environment.get(name) for name in names.difference(but))

    def become(self, command: Sequence[str], environment: dict[str, str]) -> Child:
        """Args: command: of a script, or `-m module`, behind the interpreter; its stderr is a pipe."""
        self._socket = self._socket or self._start()
        reading, writing = os.pipe()
        order = {"command": list(command), "environment": environment, "directory": os.getcwd()}
        try:
            socket.send_fds(self._socket, [json.dumps(order).encode()], [writing])
        finally:
            os.close(writing)
        said = self._socket.recv(64)
        assert said, "the process that servers are copies of has ended"
        return Child(int(said), [sys.executable, *command], open(reading, encoding="utf-8", buffering=1))

    def close(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()


# -- in that process ---------------------------------------------------------------------------------------------------


def _next_order(control: socket.socket) -> dict[str, Any]:
    """Returns in each copy; its process ends when nobody can ask any more."""
    while True:
        told, files, _, _ = socket.recv_fds(control, 1 << 18, 1)
        if not told:
            sys.exit(0)
        reading, writing = os.pipe()
        if between := os.fork():
            os.close(files[0])
            os.close(writing)
            os.waitpid(between, 0)  # whoever asked is the copy's parent from here on
            control.send(os.read(reading, 64))
            os.close(reading)
        elif copy := os.fork():
            os.write(writing, str(copy).encode())
            os._exit(0)
        else:
            os.dup2(files[0], 2)
            for file in (files[0], reading, writing):
                os.close(file)
            control.close()
            return json.loads(told)  # type: ignore[no-any-return]


def _run(command: Sequence[str]) -> None:
    """What the interpreter does with such words."""
    if command[0] == "-P":
        del sys.path[0]
        command = command[1:]
    elif command[0] == "-m":
        sys.path[0] = os.getcwd()
    else:
        sys.path[0] = str(Path(command[0]).parent)
    if command[0] == "-m":
        sys.argv = list(command[1:])
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(command)
        runpy.run_path(command[0], run_name="__main__")


def _copied(command: Sequence[str], stdin: int) -> Any:
    """In place of subprocess.Popen, for an engine process that is begun beside its server's imports."""
    if threading.active_count() > 1:
        return subprocess.Popen(command, stdin=stdin)
    if pid := os.fork():
        return Child(pid, command)
    code = 1
    try:
        for file in os.listdir("/proc/self/fd"):  # a limit of files may be a billion
            if int(file) > 2:
                with contextlib.suppress(OSError):  # what listed them is closed by now
                    os.close(int(file))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _run(command[1:])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)


def main(control: socket.socket) -> None:
    gc.disable()
    for name in _MODULES:
        importlib.import_module(name)
    import albireo.engine_process.spawned

    gc.freeze()
    gc.enable()
    order = _next_order(control)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    albireo.engine_process.spawned.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
        Popen=_copied, DEVNULL=subprocess.DEVNULL
    )
    _run(order["command"])


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
