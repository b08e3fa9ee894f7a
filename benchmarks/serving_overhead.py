"""The question: what does the way over HTTP cost, against the engine in this process?

    python benchmarks/serving_overhead.py [--model MODEL] [--quantization int8] [--rounds 5] [--threads 2]

Both have the same model and take turns, run by run. W3: 32 mixed requests at once; tokens in and out a second of the
server, which streams every answer, as a fraction of the engine's, which makes no text. W1: one stream; the median gap
between its tokens, as a multiple of the engine's. Where a model is too small for the lengths and token ids of the
workloads, both get them brought down alike. Ratios within a round are what is compared; medians and spreads are
printed, every round is appended to benchmarks/results/serving_overhead.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from serving import Server
from workloads.fixed_requests import WORKLOADS, Request

from albireo.api.load import Loaded, load
from albireo.config import EngineConfig
from albireo.engine.engine import Engine
from albireo.params import SamplingParams

RESULTS = Path(__file__).resolve().parent / "results" / "serving_overhead.jsonl"
#: Given to the two engines, which are loaded at once.
KV_CACHE_BYTES = 2 << 30
#: Before each run: whoever ran before is to have ended what it does after its answers.
SETTLE_S = 1.0


@dataclass
class Run:
    """What one run gave: seconds in all, and when the tokens of its first request came."""

    wall_s: float
    times: list[float]

    @property
    def median_gap_s(self) -> float:
        return statistics.median(b - a for a, b in itertools.pairwise(self.times))


class InProcess:
    """The engine, stepped here."""

    def __init__(self, loaded: Loaded) -> None:
        self._engine = Engine(loaded.settings, loaded.execute, time.perf_counter)

    def run(self, requests: list[Request]) -> Run:
        times: list[float] = []
        num_tokens = 0
        start = time.perf_counter()
        for idx, (prompt, length) in enumerate(requests):
            params = SamplingParams(temperature=0.0, max_tokens=length, ignore_eos=True)
            self._engine.add_request(str(idx), prompt, params)
        while self._engine.has_work():
            for update in self._engine.step():
                num_tokens += len(update.token_ids)
                if update.request_id == "0":
                    times += [time.perf_counter()] * len(update.token_ids)
        wall_s = time.perf_counter() - start
        assert num_tokens == sum(length for _, length in requests), num_tokens
        return Run(wall_s, times)


class OverHttp:
    """The server, asked over plain sockets."""

    def __init__(self, port: int) -> None:
        self._port = port

    def run(self, requests: list[Request]) -> Run:
        return asyncio.run(self._run(requests))

    async def _run(self, requests: list[Request]) -> Run:
        start = time.perf_counter()
        times = await asyncio.gather(*(self._stream(*request) for request in requests))
        return Run(time.perf_counter() - start, times[0])

    async def _stream(self, prompt: list[int], length: int) -> list[float]:
        """When each token came."""
        ask = {"prompt": prompt, "max_tokens": length, "temperature": 0, "ignore_eos": True, "stream": True}
        body = json.dumps({**ask, "return_token_ids": True}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        times: list[float] = []
        async for line in reader:
            if line.startswith(b'data: {"id"'):
                now = time.perf_counter()
                times += [now] * len(json.loads(line[6:])["choices"][0].get("token_ids") or ())
            elif line == b"data: [DONE]\n":
                break
        writer.close()
        assert len(times) == length, f"{len(times)} tokens of {length} came"
        return times


def fitting(requests: list[Request], loaded: Loaded) -> list[Request]:
    """Requests brought down to what the model takes."""
    longest = max(len(prompt) + length for prompt, length in requests)
    divisor = -(-longest // loaded.settings.max_model_len)
    vocab = loaded.model_config.vocab_size
    return [
        ([token % vocab for token in prompt[: max(1, len(prompt) // divisor)]], max(2, length // divisor))
        for prompt, length in requests
    ]


def measure(engine: InProcess, server: OverHttp, workload: str, loaded: Loaded, run: int) -> dict[str, float]:
    """One round of one workload."""
    requests = fitting(WORKLOADS[workload](run), loaded)
    total = sum(len(prompt) + length for prompt, length in requests)
    found = {}
    for name, side in (("engine", engine), ("server", server)) if run % 2 else (("server", server), ("engine", engine)):
        time.sleep(SETTLE_S)
        found[name] = side.run(requests)
    ours, theirs = found["server"], found["engine"]
    if len(requests) > 1:
        speeds = {"server_tok_s": total / ours.wall_s, "engine_tok_s": total / theirs.wall_s}
        return speeds | {"server_of_engine": theirs.wall_s / ours.wall_s}
    gaps = {"server_gap_ms": ours.median_gap_s * 1e3, "engine_gap_ms": theirs.median_gap_s * 1e3}
    return gaps | {"gap_ratio": ours.median_gap_s / theirs.median_gap_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint directory; the bundled model when left out")
    parser.add_argument("--quantization")
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workloads", default="W3,W1")
    args = parser.parse_args()
    config = EngineConfig(
        model=args.model,
        quantization=args.quantization,
        kv_cache_dtype=args.kv_cache_dtype,
        kv_cache_memory_bytes=KV_CACHE_BYTES,
        num_threads=args.threads,
        max_model_len=4096 if args.model else None,
    )
    words = [args.model] if args.model else []
    for name in ("quantization", "kv_cache_dtype", "kv_cache_memory_bytes", "num_threads", "max_model_len"):
        if (value := getattr(config, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    loaded = load(config)
    rows = []
    with Server(words) as server:
        sides = InProcess(loaded), OverHttp(server.port)
        for workload in args.workloads.split(","):
            measure(*sides, workload, loaded, 97)  # not counted
            for run in range(args.rounds):
                head = {"date": time.strftime("%Y-%m-%d"), "model": loaded.directory.name, "workload": workload}
                head |= {"quantization": args.quantization, "round": run}
                rows.append(head | measure(*sides, workload, loaded, run))
                print(json.dumps(rows[-1]), flush=True)
    for workload in args.workloads.split(","):
        ours = [row for row in rows if row["workload"] == workload]
        for key in list(ours[0])[5:]:
            low, mid, high = (pick([row[key] for row in ours]) for pick in (min, statistics.median, max))
            print(f"{workload} {key:18} {low:.4g} / {mid:.4g} / {high:.4g}")
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
