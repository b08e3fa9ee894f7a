"""Does a server lose a request, or answer otherwise, when what can happen to it happens?

    python tools/chaos.py [MODEL] [--seconds 60] [--seed 0] [--streams 24] [-- SERVE'S FLAGS]

Requests of four protocols, greedy and drawn by seeds, are asked one by one of a quiet server of the same model. Then
many are asked at once of one whose KV cache is too small for them, while clients leave and read slowly, engine
processes are killed and stopped for a while, and the server is paused, put to sleep and told to forget what it has
computed. Whatever was asked has to be answered, by the same bits: texts, log-probabilities, reasons and counts. In the
end nothing may run, wait or hold blocks, and the server has to end with 0, leaving no shared memory.

Run with the project's Python; servers listen on loopback. Flags behind -- replace those of the busy server; flags
that change numbers (--tensor-parallel-size, --quantization) go to both with --both "...". Ends with 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from server_process import Server

CROWDED = (
    "--num-gpu-blocks-override", "34", "--max-num-seqs", "16", "--max-num-batched-tokens", "96",
    "--max-model-len", "512",
)  # fmt: skip
STORY = "once upon a time there was little fox who lived in the big forest and liked to play near river"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
#: What is to be 0 in /metrics when all are through.
AT_REST = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
STREAMED = ("/v1/completions", "/v1/chat/completions")


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    body: dict[str, Any]


def make_request(draw: random.Random) -> Asked:
    """One that has the same answer each time."""
    text = " ".join(draw.choices(STORY.split(), k=draw.choice([1, 4, 20, 60, 120])))
    if draw.random() < 0.4:
        text = f"{STORY} {STORY} {STORY} {text}"  # as others begin
    body: dict[str, Any] = {"max_tokens": draw.choice([1, 3, 8, 20, 40, 70]), "model": "story", "temperature": 0}
    chat = [{"role": "user", "content": text}]
    match draw.choice(["text", "text", "tokens", "chat", "chat", "messages", "ollama"]):
        case "messages":
            return Asked("/v1/messages", {**body, "messages": chat})
        case "ollama":
            options = {"temperature": 0, "num_predict": body["max_tokens"]}
            return Asked("/api/generate", {"model": "story", "prompt": text, "stream": False, "options": options})
        case kind:
            pass
    if draw.random() < 0.5:
        body |= {"temperature": 0.9, "seed": draw.randrange(1000), "top_p": draw.choice([1, 0.9])}
    for chance, name, values in (
        (0.3, "n", [2, 3]),
        (0.3, "stop", [[" the"], ["."], ["e t"]]),
        (0.2, "frequency_penalty", [0.5]),
        (0.1, "logit_bias", [{"5": 3}]),
        (0.2, "priority", [-1, 1]),
    ):
        if draw.random() < chance:
            body[name] = draw.choice(values)
    if kind == "chat":
        if draw.random() < 0.3:
            body |= {"logprobs": True, "top_logprobs": 2}
        elif draw.random() < 0.2:
            form = {"name": "a", "schema": SCHEMA}
            body |= {"response_format": {"type": "json_schema", "json_schema": form}}
        return Asked("/v1/chat/completions", {**body, "messages": chat})
    if draw.random() < 0.3:
        body["logprobs"] = 2
    prompt = text if kind == "text" else [draw.randrange(5, 2000) for _ in range(draw.choice([3, 17, 33, 90]))]
    return Asked("/v1/completions", {**body, "prompt": prompt, "echo": draw.random() < 0.15})


def told(asked: Asked, answer: dict[str, Any]) -> Any:
    """What of an answer has to be the same."""
    if asked.path == "/v1/messages":
        return answer["content"], answer["stop_reason"], answer["usage"]["output_tokens"]
    if asked.path == "/api/generate":
        return answer["response"], answer["done_reason"], answer["eval_count"]
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    texts = [choice["text"] if "text" in choice else choice["message"]["content"] for choice in choices]
    reasons = [choice["finish_reason"] for choice in choices]
    usage = answer["usage"]
    return texts, reasons, usage["prompt_tokens"], usage["completion_tokens"], [c.get("logprobs") for c in choices]


class Chaos:
    """Clients and what happens to the server of one run."""

    def __init__(self, server: Server, requests: list[Asked], right: list[Any], seed: int, seconds: float) -> None:
        """Args: right: what a quiet server told of each."""
        self._server, self._requests, self._right = server, requests, right
        self._draw, self._end = random.Random(seed), time.monotonic() + seconds
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    async def run(self, num_streams: int) -> None:
        """Until the time is over and everybody has an answer."""
        await asyncio.gather(self._disturb(), *(self._ask_on() for _ in range(num_streams)))
        async with self._client() as client:
            for asked, right in list(zip(self._requests, self._right, strict=True))[:10]:
                self._compare(asked, (await client.post(asked.path, json=asked.body)).json(), right)
            lines = (await client.get("/metrics")).text.splitlines()
            held = [line for line in lines if line.startswith(AT_REST) and float(line.rpartition(" ")[2]) != 0]
            self.wrong += [f"in the end: {line}" for line in held]

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._server.url, timeout=120, trust_env=False)

    async def _ask_on(self) -> None:
        async with self._client() as client:
            while time.monotonic() < self._end:
                at = self._draw.randrange(len(self._requests))
                asked, right = self._requests[at], self._right[at]
                try:
                    if asked.path in STREAMED and self._draw.random() < 0.5:
                        await self._stream(client, asked, right)
                    else:
                        answer = await client.post(asked.path, json=asked.body)
                        self.counts[f"answered {answer.status_code}"] += 1
                        if answer.status_code != 200:
                            self.wrong.append(f"{asked}: {answer.status_code} {answer.text:.300}")
                        else:
                            self._compare(asked, answer.json(), right)
                except httpx.HTTPError as error:
                    self.wrong.append(f"{asked}: {error!r}")

    async def _stream(self, client: httpx.AsyncClient, asked: Asked, right: Any) -> None:
        leaves_after = self._draw.randrange(1, 8) if self._draw.random() < 0.2 else None
        texts, reasons = [""] * asked.body.get("n", 1), [None] * asked.body.get("n", 1)
        usage, is_over, num_events = {}, False, 0
        body = {**asked.body, "stream": True, "stream_options": {"include_usage": True}}
        async with client.stream("POST", asked.path, json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if line == "data: [DONE]":
                    is_over = True
                    continue
                event = json.loads(line.removeprefix("data: "))
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    more = choice["text"] if "text" in choice else choice["delta"].get("content")
                    texts[choice["index"]] += more or ""
                    reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
                num_events += 1
                if num_events == leaves_after:
                    self.counts["left"] += 1
                    return
                if self._draw.random() < 0.02:
                    await asyncio.sleep(0.3)
        self.counts[f"streamed {answer.status_code}"] += 1
        got = (texts, reasons, usage.get("prompt_tokens"), usage.get("completion_tokens"))
        if not is_over or got != right[:4]:
            self.wrong.append(f"{asked}: streamed {got}, over: {is_over}; alone {right[:4]}")

    def _compare(self, asked: Asked, answer: dict[str, Any], right: Any) -> None:
        if (got := told(asked, answer)) != right:
            self.wrong.append(f"{asked}: {got}; alone {right}")

    async def _disturb(self) -> None:
        async with self._client() as client:
            while time.monotonic() < self._end - 3:
                await asyncio.sleep(self._draw.uniform(1, 3))
                what = self._draw.choice(["kill", "kill", "stop", "reset_prefix_cache", "pause", "sleep"])
                self.counts[what] += 1
                if what in ("kill", "stop"):
                    await self._strike(what)
                    continue
                how = f"?mode={self._draw.choice(['keep', 'wait'])}" if what == "pause" else ""
                await client.post(f"/{what}{how}")  # who is busy cannot sleep, and says so
                await asyncio.sleep(0.3)
                if what in ("pause", "sleep"):
                    await client.post("/resume" if what == "pause" else "/wake_up")

    async def _strike(self, what: str) -> None:
        engines = list(engines_of(self._server.process.pid))
        if not engines:
            return  # one is being started
        pid = self._draw.choice(engines)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if what == "kill" else signal.SIGSTOP)
            if what == "stop":
                await asyncio.sleep(self._draw.uniform(0.2, 2))
                os.kill(pid, signal.SIGCONT)


def engines_of(server: int) -> Iterator[int]:
    """Its engine processes."""
    for child in Path(f"/proc/{server}/task/{server}/children").read_text().split():
        with suppress(OSError):
            if b"engine_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield int(child)


@contextmanager
def served(flags: list[str], wrong: list[str]) -> Iterator[Server]:
    """A server, and whether it ends as it should."""
    shared = set(os.listdir("/dev/shm"))
    server = Server(*flags, "--served-model-name", "story", "--scheduling-policy", "priority", "--no-log-requests")
    try:
        server.wait_for("is ready")
        yield server
    finally:
        if (code := server.stop()) != 0:
            wrong.append(f"the server ended with {code}")
        wrong += [f"left in /dev/shm: {name}" for name in set(os.listdir("/dev/shm")) - shared]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a directory; by default the bundled model")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--streams", type=int, default=24, help="clients at once")
    parser.add_argument("--requests", type=int, default=70, help="different ones")
    parser.add_argument("--both", default="", help="flags of the quiet server, too")
    parser.add_argument("flags", nargs="*", default=CROWDED, help="of the busy server, behind --")
    given = parser.parse_args()
    draw, wrong = random.Random(given.seed), []
    requests = [make_request(draw) for _ in range(given.requests)]
    both = [*([given.model] if given.model else []), *shlex.split(given.both)]
    with served(both, wrong) as quiet:
        right = [told(asked, quiet.http.post(f"{quiet.url}{asked.path}", json=asked.body).json()) for asked in requests]
    with served([*both, *given.flags], wrong) as busy:
        chaos = Chaos(busy, requests, right, given.seed, given.seconds)
        asyncio.run(chaos.run(given.streams))
    wrong += chaos.wrong
    print(", ".join(f"{what} {count}" for what, count in sorted(chaos.counts.items())))
    for words in wrong[:20]:
        print(f"WRONG: {words}"[:2000])
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
