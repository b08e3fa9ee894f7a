"""The question: on one machine, one engine of all threads or an engine for each of them; and what does a death cost?

    python benchmarks/data_parallel.py [--model MODEL] [--engines 2] [--rounds 3]

Two servers of the same model take turns: one engine of N threads, and N engines of one thread each. Short requests and
streams as in serving.py; the second's rate as a multiple of the first's, round by round. Then a stream's engine process
is killed at each, and the longest gap between two pieces of the stream is told: until another process has loaded the
model, or until another engine goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import statistics
import time
import urllib.request
from typing import Any

from serving import NUM_TOKENS, Server, post, shorts, streams


def rate(work: Any, port: int) -> float:
    """Of what it does, a second."""
    before = time.perf_counter()
    return float(asyncio.run(work(port)) / (time.perf_counter() - before))


def event(port: int) -> dict[str, Any]:
    """What /v1/stats says of now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/stats") as stats:
        found: dict[str, Any] = json.loads(stats.readline()[6:])
        return found


async def killed(port: int) -> float:
    """Kill the engine of a stream in its middle. Returns: the longest gap between two pieces, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ask = {"prompt": "Once upon a time", "max_tokens": NUM_TOKENS, "stream": True, "ignore_eos": True, "seed": 1}
    body = json.dumps(ask).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    times: list[float] = []
    while line := await reader.readline():
        if line.startswith(b"data: "):
            times.append(time.perf_counter())
        if line.startswith(b"data: [DONE]"):
            break
        if len(times) == 40:
            times.append(times[-1])
            now = await asyncio.to_thread(event, port)
            os.kill(now["engines"][now["requests"][0]["engine"]]["pid"], signal.SIGKILL)
    writer.close()
    return max(b - a for a, b in itertools.pairwise(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--engines", default=2, type=int)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    words = [*([args.model] if args.model else []), "--num-threads", str(args.engines)]
    with Server(words) as one, Server([*words, "-dp", str(args.engines)]) as several:
        for server in (one, several):
            while any(each["state"] != "ready" for each in event(server.port)["engines"]):
                time.sleep(0.1)
            asyncio.run(post(server.port, {"prompt": "Once", "max_tokens": 50}))
        for name, work in (("short requests", shorts), ("streamed tokens", streams)):
            pairs = [(rate(work, one.port), rate(work, several.port)) for _ in range(args.rounds)]
            ratios = [b / a for a, b in pairs]
            print(f"{name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
        for name, server in (("one engine", one), (f"one of {args.engines}", several)):
            gaps = [asyncio.run(killed(server.port)) for _ in range(args.rounds) if time.sleep(2) is None]
            print(f"longest gap, {name} killed: {', '.join(f'{gap * 1e3:.0f} ms' for gap in gaps)}", flush=True)


if __name__ == "__main__":
    main()
