"""64 requests decoding while they are streamed: the share of the time in which the GPU computes. To be at least 0.95.

By CUDA events before what each step launches and behind it (timeline.py). `server`: the real one over HTTP, in three
processes: clients, server, engine; it needs what SERVER_NEEDS names. `one process`: the engine's thread and 64
readers on an event loop, as AsyncLLM has them, which share Python's lock. `kernels`: of the latter, by CUPTI, kernels
alone: what is between the launches of a step does not count, and watching costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from report import Row, target
from setup import Setup, attempt

if TYPE_CHECKING:
    from albireo.api.engine_thread import EngineThread

REQUESTS, TARGET = 64, 0.95
PROMPT, OUTPUT, LONGEST = 128, 1500, 2048
HERE = Path(__file__).resolve().parents[1]
SERVER_NEEDS = ("uvicorn", "starlette", "httptools", "msgspec", "prometheus_client", "uvloop", "tokenizers")


def run(setup: Setup) -> Iterator[Row]:
    import albireo.api.engine_thread  # noqa: F401 - where it is missing the part is skipped

    for weights in setup.pick(("fp8", "bf16"), ("bf16",)):
        yield from attempt(f"{weights}, server", lambda weights=weights: _server(setup, weights))
        yield from attempt(f"{weights}, one process", lambda weights=weights: _one_process(setup, weights))


def _server(setup: Setup, weights: str) -> Iterator[Row]:
    missing = [name for name in SERVER_NEEDS if find_spec(name) is None]
    if missing:
        yield Row(f"{weights}, server", note=f"left out: {', '.join(missing)} missing")
        return
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "busy.json"
        seats = setup.pick(REQUESTS, 2)
        script, kind = str(HERE / "random_server.py"), setup.pick("real", "dry")
        command = [sys.executable, script, directory, str(report), weights, str(seats), kind]
        with (Path(directory) / "log").open("w+") as log:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            try:
                events, ends = asyncio.run(_clients(setup, server, report, seats))
            except Exception:
                log.seek(0)
                print(log.read()[-3000:], file=sys.stderr)
                raise
            finally:
                server.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(20)
                server.kill()
        found: dict[str, Any] = json.loads(report.read_text())
    note = (
        f"{found['tokens'] / found['seconds']:,.0f} tok/s, {found['steps']} steps of "
        f"{found['seconds'] / found['steps'] * 1e3:.2f} ms, {events} events and {ends} whole answers"
    )
    yield target(f"{weights}, server, {seats} streams: GPU busy", found["busy"], TARGET, note=note)


async def _clients(setup: Setup, server: subprocess.Popen[str], report: Path, seats: int) -> tuple[int, int]:
    from streams import read_streams

    assert server.stdout is not None
    words = await asyncio.to_thread(server.stdout.readline)
    port = int(words.rstrip().rpartition(":")[2])
    url, limit = f"http://127.0.0.1:{port}/health", time.monotonic() + min(180.0, setup.seconds_left)
    while not await asyncio.to_thread(_answers, url):
        if server.poll() is not None or time.monotonic() > limit:
            raise RuntimeError("the server did not become ready")
        await asyncio.sleep(0.2)

    def is_over() -> bool:
        return report.exists() or time.monotonic() > limit

    prompt, output, vocab = setup.pick((PROMPT, OUTPUT, 128_256), (4, 12, 160))
    return await read_streams(port, seats, prompt, output, vocab, is_over)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _one_process(setup: Setup, weights: str) -> Iterator[Row]:
    from model import BLOCK_SIZE, random_model, vocabulary
    from timeline import Timeline
    from traffic import settings_of

    from albireo.api.driver import Driver
    from albireo.api.engine_thread import EngineThread
    from albireo.execution.ahead import AheadRunner

    num, step_tokens, longest = setup.pick((REQUESTS, 8192, LONGEST), (2, 32, 64))
    blocks = 1 + num * longest // BLOCK_SIZE
    model = random_model(setup, weights, {"T": step_tokens, "R": num, "G": num}, longest, blocks)
    timeline, vocab = Timeline(model), vocabulary(model)
    runner = AheadRunner(model, vocab, BLOCK_SIZE, longest)
    thread = EngineThread(Driver(settings_of(model, num, step_tokens, longest), runner.execute, None), runner.prepare)
    try:
        found = asyncio.run(_watch(setup, thread, timeline, num, vocab))
    finally:
        thread.stop()
    note = f"{found['tokens'] / found['seconds']:,.0f} tok/s"
    yield target(f"{weights}, one process, {num} readers: GPU busy", found["busy"], TARGET, note=note)
    if "kernels" in found:
        yield Row(f"{weights}, one process: kernels", found["kernels"], "of the time", "by CUPTI, watched")
    del model, runner, timeline
    setup.release()


async def _watch(setup: Setup, thread: EngineThread, timeline: Any, num: int, vocab: int) -> dict[str, float]:
    counted = [0] * num
    prompt, output = setup.pick((PROMPT, LONGEST - PROMPT - 1), (4, 8))
    readers = [asyncio.create_task(_read(thread, i, prompt, output, vocab, counted)) for i in range(num)]
    try:
        while min(counted) < setup.pick(60, 1):
            await asyncio.sleep(0.01)
            _raise_what_failed(readers)
        timeline.restart()
        start, before = time.perf_counter(), sum(counted)
        while time.perf_counter() - start < setup.pick(4.0, 0) or sum(counted) - before < num:
            await asyncio.sleep(0.05)
            _raise_what_failed(readers)
        seconds, tokens = time.perf_counter() - start, sum(counted) - before
        found = {"busy": timeline.share(), "seconds": seconds, "tokens": float(tokens)}
        if not setup.is_dry:
            with contextlib.suppress(Exception):  # CUPTI may not be there
                found["kernels"] = await _by_cupti()
        return found
    finally:
        for reader in readers:
            reader.cancel()


def _raise_what_failed(readers: list[asyncio.Task[None]]) -> None:
    for reader in readers:
        if reader.done():
            reader.result()
            raise RuntimeError("a request ended before it was measured")


async def _read(thread: EngineThread, index: int, prompt: int, output: int, vocab: int, counted: list[int]) -> None:
    from albireo.api.engine_thread import Stream
    from albireo.api.requests.submission import Submission
    from albireo.params import SamplingParams

    ids = np.random.default_rng(index).integers(3, vocab, prompt).tolist()
    params = SamplingParams(temperature=0.0, max_tokens=output, ignore_eos=True)
    stream = Stream(str(index), Submission(None, ids, params), 0, 0.0)
    thread.add(stream)
    while not stream.is_over:
        newest = await stream.next()
        counted[index] = len(newest.outputs[0].token_ids)  # type: ignore[union-attr]


async def _by_cupti() -> float:
    """Kernels' and copies' share of a second."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        start = time.perf_counter()
        await asyncio.sleep(1.0)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    events = [event for event in watched.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end) for event in events)
    busy, end = 0.0, float("-inf")
    for first, last in spans:
        busy += max(0.0, last - max(first, end))
        end = max(end, last)
    return busy / 1e6 / seconds
