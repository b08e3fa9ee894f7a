"""What HTTP costs: streamed tokens and short requests a second, and the processor time each process takes for them.

python benchmarks/serving.py [--model DIR] [--threads 1] [--rounds 3]

Starts `albireo serve` on a free port of loopback and asks it over plain sockets, so that the client costs little. On a
machine that others use, too, the processor times say more than the rates: they are what is left to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NUM_STREAMS, NUM_TOKENS = 32, 400
NUM_CLIENTS, NUM_SHORT = 16, 40
_TICKS = os.sysconf("SC_CLK_TCK")

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def post(port: int, ask: dict[str, Any], connection: Connection | None = None) -> tuple[bytes, Connection]:
    """One completion. Returns: the body, and the connection for the next one."""
    reader, writer = connection or await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(ask).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = re.search(rb"content-length: (\d+)", head)
    if length:
        return await reader.readexactly(int(length[1])), (reader, writer)
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(parts), (reader, writer)


async def streams(port: int) -> int:
    """NUM_STREAMS at once. Returns: tokens."""
    ask = {"prompt": "Once upon a time", "max_tokens": NUM_TOKENS, "stream": True, "ignore_eos": True}
    answers = await asyncio.gather(*(post(port, {**ask, "seed": seed}) for seed in range(NUM_STREAMS)))
    assert all(body.endswith(b"data: [DONE]\n\n") for body, _ in answers)
    for _, (_, writer) in answers:
        writer.close()
    return NUM_STREAMS * NUM_TOKENS


async def shorts(port: int) -> int:
    """NUM_CLIENTS, each with one request after the other. Returns: requests."""

    async def client() -> None:
        connection = None
        for _ in range(NUM_SHORT):
            _, connection = await post(port, {"prompt": "Once upon", "max_tokens": 4}, connection)
        if connection:
            connection[1].close()

    await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))
    return NUM_CLIENTS * NUM_SHORT


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def measure(name: str, work: Any, port: int, server: int, worker: int) -> dict[str, Any]:
    """One round of work."""
    before = time.perf_counter(), processor_s(server), processor_s(worker)
    num = asyncio.run(work(port))
    after = time.perf_counter(), processor_s(server), processor_s(worker)
    wall, in_server, in_worker = (b - a for a, b in zip(before, after, strict=True))
    return {
        "what": name,
        "per_s": round(num / wall),
        "server_us": round(in_server / num * 1e6),
        "worker_us": round(in_worker / num * 1e6),
        "load": round(os.getloadavg()[0], 1),
    }


class Server:
    """`albireo serve` on a free port of loopback, with words of its command line; ready when entered."""

    def __init__(self, words: list[str]) -> None:
        command = [sys.executable, "-m", "albireo", "serve", *words, "--port", "0", "--no-log-requests"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = 0

    def __enter__(self) -> Server:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"listening on \S+:(\d+)", line):
                self.port = int(found[1])
            if " is ready after " in line:
                return self
        raise SystemExit("the server did not start")

    def __exit__(self, *_: Any) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with Server([*([args.model] if args.model else []), "--num-threads", args.threads]) as server:
        pid = server.process.pid
        worker = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        asyncio.run(post(server.port, {"prompt": "Once", "max_tokens": 50}))
        for _ in range(args.rounds):
            for name, work in (("streamed tokens", streams), ("short requests", shorts)):
                print(json.dumps(measure(name, work, server.port, pid, worker)), flush=True)


if __name__ == "__main__":
    main()
