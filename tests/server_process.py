"""A server as users start it, on a free port of loopback. Used by the tests of server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2 as httpx

from step_gate import VARIABLE, Gate
from warm_process import Child, WarmProcess

_DEADLINE_S = 120.0
#: What /health says of a process that is started.
_ON_THE_WAY = {"loading", "waking", "restarting"}


class Server:
    """A process that serves the bundled model.

    Attributes:
        url: where it listens.
        lines: what it said on stderr so far.
        gate: holds the steps of its engine process, which is a poisoned one (server/poisoned_worker.py).
        warm: what it is a copy of, where there is one (server/conftest.py) and nothing is to be started from nothing.
    """

    warm: WarmProcess | None = None

    def __init__(
        self,
        *args: str,
        is_poisoned: bool = False,
        is_loading_held: bool = False,
        is_one_broken: bool = False,
        is_fresh: bool = False,
    ) -> None:
        """Args: of a poisoned one: is_loading_held: the model is not loaded before gate.open(); is_one_broken: the
        first process that loads it cannot. is_fresh: it is started from nothing, as users start it."""
        where = () if "--uds" in args else ("--port", "0")
        words = [*where, "--num-threads", "1", *args]
        command = ["-m", "albireo", "serve", *words]
        if is_poisoned:
            command = [str(Path(__file__).parent / "server" / "serve_poisoned.py"), *words]
        self.lines: list[str] = []
        key = args[args.index("--api-key") + 1] if "--api-key" in args else None
        self._key = {} if key is None else {"authorization": f"Bearer {key}"}
        self._is_poisoned = is_poisoned
        # no certificates are wanted of it: reading those of authorities takes 30 ms a client
        self.http = httpx.Client(timeout=60, trust_env=False, verify=False)
        self._clients: list[Any] = []
        self._directory = tempfile.TemporaryDirectory(prefix="albireo-test-")
        self.gate = Gate(Path(self._directory.name))
        if is_loading_held:
            self.gate.hold_loading()
        if is_one_broken:
            self.gate.break_one()
        self.process = _started(
            command, {**os.environ, VARIABLE: self._directory.name}, None if is_fresh else self.warm
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = self.wait_for(r"listening on (\S+)").group(1)
        except BaseException:
            self.stop()
            raise
        self.http.base_url = self.url

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line of stderr that holds a pattern."""
        return wait_until(lambda: next((m for line in list(self.lines) if (m := re.search(pattern, line))), None), self)

    def wait_until_ready(self) -> Server:
        self.wait_for(r" is ready after ")  # before it, each look is a request that it has to answer
        wait_until(lambda: self.http.get("/health").status_code == 200, self)
        return self

    def wait_for_rest(self) -> None:
        """Until it has nothing to do, and no process of it is on the way; at once, where it has ended."""
        wait_until(lambda: self.process.poll() is not None or self._is_at_rest())

    def _is_at_rest(self) -> bool:
        if self.http.get("/load", headers=self._key).raise_for_status().json()["server_load"]:
            return False
        # one that no test kills is not asked
        return not (self._is_poisoned and _ON_THE_WAY & _statuses(self.http.get("/health").json()))

    def wait_for_end(self) -> int:
        """The exit status, once everything it said was read."""
        status = self.process.wait(_DEADLINE_S)
        self._reader.join(_DEADLINE_S)
        return status

    def kill_held(self) -> None:
        """End the engine process once its gate holds it, which makes certain that it dies in the middle of its work."""
        wait_until(self.gate.is_holding, self)
        worker = self.gate.holder()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: has_ended(worker), self)
        self.gate.forget()

    def workers(self) -> list[int]:
        """Process ids of the engine process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def client(self, **kwargs: Any) -> Any:
        import openai

        options = {"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 60, **kwargs}
        made = openai.OpenAI(http_client=httpx.Client(trust_env=False, verify=False), **options)
        self._clients.append(made)
        return made

    def num_restarts(self) -> int:
        """Of its engine process so far."""
        return int(self.http.get("/health").json()["num_restarts"])

    def metrics(self) -> dict[str, float]:
        """Name of a metric without labels -> sum over them."""
        found: dict[str, float] = {}
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith("vllm:"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def metrics_since(self, before: dict[str, float]) -> dict[str, float]:
        """What metrics() has more than before; gauges should be nothing then as now."""
        return {name: value - before.get(name, 0.0) for name, value in self.metrics().items()}

    def ask_to_stop(self) -> None:
        """SIGTERM; stop() waits for what comes of it."""
        self.gate.open()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        for client in (self.http, *self._clients):
            client.close()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.ask_to_stop()
        try:
            return self.process.wait(_DEADLINE_S)
        finally:
            if self.process.poll() is None:
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self._reader.join(_DEADLINE_S)  # who reads a pipe that is closed meanwhile raises
            assert self.process.stderr is not None
            self.process.stderr.close()
            self._directory.cleanup()


def _started(
    command: list[str], environment: dict[str, str], warm: WarmProcess | None
) -> subprocess.Popen[str] | Child:
    """Args: command: behind the interpreter."""
    if warm is not None and warm.can_be(environment, but=[VARIABLE]):
        return warm.become(command, environment)
    whole = [sys.executable, *command]
    return subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, bufsize=1, env=environment)


def lasting(ending: ExitStack, *args: str, is_poisoned: bool = False, is_fresh: bool = False) -> Iterator[Server]:
    """For a fixture: a server that serves, and at its end is told to stop, which `ending` waits for."""
    made = Server(*args, is_poisoned=is_poisoned, is_fresh=is_fresh)
    ending.callback(made.stop)
    yield made.wait_until_ready()
    made.ask_to_stop()


def wait_until(found: Callable[[], Any], server: Server | None = None) -> Any:
    """The first true value; fails after a time that only a hang needs."""
    end = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end:
        if value := found():
            return value
        assert server is None or server.process.poll() is None, f"the server ended: {server.lines[-5:]}"
        time.sleep(0.01)
    raise AssertionError(f"nothing came of it: {[] if server is None else server.lines[-5:]}")


def _statuses(health: dict[str, Any]) -> set[str]:
    """Of a server, and of each engine or model of it."""
    parts = [*health.get("engines", ()), *health.get("models", ())]
    return {each["status"] for each in (health, *parts)}


def has_ended(process_id: int) -> bool:
    """Whether a process is gone, or waits for its parent to hear of it."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
