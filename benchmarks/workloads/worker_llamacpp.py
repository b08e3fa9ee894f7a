"""llama.cpp: python worker_llamacpp.py FILE.gguf THREADS

Its own server, `llama-server`, which lies beside that python, gets prompts of token ids over loopback, as many at once
as a workload has. Each workload has a server of that many slots, of the context it needs. HTTP is in the times.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fixed_requests import Request
from worker import serve  # first: it takes stdout

START_S, ANSWER_S = 120.0, 600.0
GREEDY = {"temperature": 0, "top_k": 1, "samplers": ["top_k"], "ignore_eos": True, "cache_prompt": True}


class Server:
    """llama-server with a number of slots, each of a length."""

    def __init__(self, model: str, threads: int, slots: int, length: int) -> None:
        self.shape = slots, length
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        given = {"-m": model, "--host": "127.0.0.1", "--port": self._port, "-t": threads, "-tb": threads}
        given |= {"-np": slots, "-c": slots * length, "-b": 2048, "-ub": 512, "-fa": "on"}
        words = [str(word) for pair in given.items() for word in pair]
        binary = Path(sys.executable).with_name("llama-server")
        self._process = subprocess.Popen([str(binary), *words, "--no-kv-unified"])
        end = time.monotonic() + START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{binary} did not start")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def complete(self, request: Request) -> float:
        """One completion, streamed. Returns: when its first token came, by the clock of perf_counter."""
        prompt, num_tokens = request
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        body = json.dumps({**GREEDY, "prompt": prompt, "n_predict": num_tokens, "stream": True})
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        first, last = 0.0, {}
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                first, last = first or time.perf_counter(), json.loads(line[6:])
        connection.close()
        assert last.get("tokens_predicted") == num_tokens, last
        return first

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


class Engine:
    """The server of the workload that runs now."""

    def __init__(self, model: str, threads: int) -> None:
        self._given = model, threads
        self._server: Server | None = None

    def _serving(self, slots: int, length: int) -> Server:
        if self._server is None or self._server.shape != (slots, length):
            self.stop()
            self._server = Server(*self._given, slots, length)
        return self._server

    def run(self, requests: list[Request]) -> tuple[float, float | None]:
        longest = max(len(prompt) + num_tokens for prompt, num_tokens in requests)
        server = self._serving(len(requests), -(-longest // 256) * 256)
        with ThreadPoolExecutor(len(requests)) as pool:
            start = time.perf_counter()
            firsts: list[Any] = list(pool.map(server.complete, requests))
            wall_s = time.perf_counter() - start
        return wall_s, firsts[0] - start if len(requests) == 1 else None

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


engine = Engine(sys.argv[1], int(sys.argv[2]))
try:
    serve(engine.run)
finally:
    engine.stop()
