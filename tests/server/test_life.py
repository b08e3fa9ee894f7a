"""Clients that leave, queues that are full, deadlines, slow readers, signals, engines that cannot run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.server import run
from server_process import Server, has_ended, lasting, wait_until

NARROW = ("--max-num-seqs", "1", "--max-num-queued-requests", "2", "--request-timeout", "60")
LONG: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 500, "ignore_eos": True, "stream": True, "seed": 1}


def wait_until_known(server: Any, *names: str) -> None:
    """Until the server has these requests."""
    for name in names:
        wait_until(lambda name=name: server.http.get(f"/v1/requests/cmpl-{name}/explain").status_code == 200)


def wait_until_over(server: Any, before: dict[str, float], num: int) -> None:
    """Until so many more have ended than in `before`."""
    name = "vllm:request_success_total"
    wait_until(lambda: server.metrics()[name] == before[name] + num)


def hold_one(server: Any, open_stream: Any) -> Any:
    """A request that has its first token, and no other before the gate is opened."""
    server.gate.hold(1)
    connection = open_stream(server, LONG)
    wait_until(server.gate.is_holding, server)
    return connection


def test_a_client_that_leaves_frees_its_blocks(slow: Server, open_stream: Any) -> None:
    server = slow
    for ask in ({**LONG, "n": 16}, {**LONG, "n": 16, "stream": False}, {**LONG, "n": 2}):
        num = ask.get("n", 1)
        before = server.metrics()
        server.gate.hold(3)
        connection = open_stream(server, {**ask, "max_tokens": 505})
        wait_until(server.gate.is_holding, server)
        connection.close()
        wait_until_over(server, before, num)
        made = server.metrics()["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
        assert 0 < made < 505 * num
        # The engine hears in order: once it has answered another, a third is all that it has.
        server.gate.open()
        assert server.http.post("/v1/completions", json={"prompt": "A cat", "max_tokens": 3}).status_code == 200
        server.gate.hold(3)
        other = open_stream(server, {**LONG, "prompt": "A cat", "max_tokens": 10})
        wait_until(server.gate.is_holding, server)
        wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 1)
        found = server.metrics()
        assert (found["vllm:num_requests_waiting"], found["vllm:kv_cache_usage_perc"]) == (0, 1 / 64)
        server.gate.open()
        assert b"HTTP/1.1 200" in other.recv(1 << 16)
        wait_until_over(server, before, num + 2)


@pytest.fixture(scope="module")
def narrow(ending: ExitStack) -> Iterator[Server]:
    """One request at a time, and two that wait."""
    yield from lasting(ending, *NARROW, is_poisoned=True)


def test_a_full_queue_is_a_429(narrow: Server, open_stream: Any) -> None:
    server, before = narrow, narrow.metrics()
    waiting = [hold_one(server, open_stream)]
    waiting += [open_stream(server, {**LONG, "request_id": name}) for name in "ab"]
    wait_until_known(server, "a", "b")
    with pytest.raises(openai.RateLimitError) as raised:
        server.client().completions.create(model="story", prompt="Once", max_tokens=1)
    assert int(raised.value.response.headers["retry-after"]) >= 1
    assert server.metrics_since(before)["vllm:admission_rejections_total"] == 1
    behind = server.http.get("/v1/requests/cmpl-b/explain").json()["queued_behind"]
    assert (behind["running"], behind["waiting"]) == (1, 1)
    for connection in waiting:
        connection.close()
    wait_until_over(server, before, 3)
    server.gate.open()
    answer = server.client().completions.create(model="story", prompt="Once", max_tokens=1)
    assert answer.choices[0].finish_reason == "length"


def test_a_deadline(narrow: Server, open_stream: Any) -> None:
    server = narrow
    hold_one(server, open_stream)
    client = server.client(default_headers={"x-request-timeout": "0.02"})
    with pytest.raises(openai.InternalServerError, match=r"longer than 0\.02 s") as raised:
        client.completions.create(model="story", prompt="Once", max_tokens=400, n=2)
    assert raised.value.status_code == 504
    server.gate.open()
    bad = server.http.post("/v1/completions", json={"prompt": "a"}, headers={"x-request-timeout": "soon"})
    assert bad.status_code == 400


def test_a_client_that_does_not_read_is_given_up_and_a_worker_ends_with_its_server(
    start: Any, open_stream: Any
) -> None:
    server = start("--reader-timeout", "0.3", is_fresh=True)
    # 6 MB: with half of it, which socket buffers (4 MB of them, by default) may hold, nobody need wait for the reader
    connection = open_stream(server, {**LONG, "n": 16, "logprobs": 20, "request_id": "stuck"})
    wait_until(lambda: server.metrics()["vllm:request_success_total"] == 16)
    wait_until(lambda: any('"status":200' in line and "cmpl-" in line for line in list(server.lines)))
    account = server.http.get("/v1/requests/cmpl-stuck/explain").json()
    assert account["waited_for_reader_s"] >= 0.25
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], abs=1e-9)
    received = read(connection)
    assert received.startswith(b"HTTP/1.1 200") and b"[DONE]" not in received
    # its engine process does not outlive it
    (worker,) = server.workers()
    os.kill(server.process.pid, signal.SIGKILL)
    server.wait_for_end()
    wait_until(lambda: has_ended(worker))


def read(connection: Any) -> bytes:
    """All that comes until the server closes it."""
    data = b""
    while chunk := connection.recv(1 << 16):
        data += chunk
    return data


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_signal_lets_what_runs_finish(start: Any, open_stream: Any, number: signal.Signals) -> None:
    """Also where it reaches all processes: systemd sends SIGTERM so, a terminal that closes SIGHUP."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests ignore it, and so do processes that they start")
    server = start(*NARROW, is_poisoned=True, is_fresh=True)
    server.gate.hold(20)
    connections = []
    for name in ("runs", "waits", "waits-too"):
        ask = {**LONG, "max_tokens": 60, "request_id": name}
        connections.append(open_stream(server, ask, "connection: close"))
        wait_until_known(server, name)
        wait_until(server.gate.is_holding, server)  # the first runs, before the others take the seats of those who wait
    for process_id in (*server.workers(), server.process.pid):
        os.kill(process_id, number)
    wait_until(lambda: server.http.get("/health").status_code == 503)
    refusal = server.http.post("/v1/completions", json=LONG)
    assert refusal.status_code == 503
    assert refusal.headers["retry-after"] and refusal.json()["error"]["code"] == "shutting_down"
    server.gate.open()
    assert server.wait_for_end() == 0
    for connection in connections:  # what was said to them is in the sockets
        data = read(connection)
        assert data.count(b'"finish_reason":"length"') == 1 and b"data: [DONE]" in data


@pytest.mark.parametrize(
    ("numbers", "is_at_once"),
    [
        ([signal.SIGHUP, signal.SIGHUP, signal.SIGHUP], False),
        ([signal.SIGTERM, signal.SIGHUP], False),
        ([signal.SIGHUP, signal.SIGTERM], True),
        ([signal.SIGINT, signal.SIGINT], True),
    ],
    ids=lambda value: "-".join(each.name for each in value) if isinstance(value, list) else "",
)
def test_the_second_signal_of_a_terminal_that_closes_lets_what_runs_finish_too(
    numbers: list[signal.Signals], is_at_once: bool
) -> None:
    """One is its shell's, the other the system's, once that has ended."""
    server: Any = SimpleNamespace(force_exit=False, should_exit=False)

    async def main() -> None:
        stopping = run._on_signals(server)
        for number in numbers:
            told = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGUSR1)  # comes behind it
            await told.wait()
            assert stopping.is_set()

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (server.force_exit, server.should_exit) == (is_at_once, is_at_once)


@pytest.mark.parametrize(("given_s", "left_s"), [(30.0, 30), (0.0, 2)])
def test_connections_have_what_is_left_of_the_time_to_close(given_s: float, left_s: int) -> None:
    """An engine is done with an answer before who reads it slowly is."""

    async def drain() -> None:
        assert not server.should_exit

    async def main() -> None:
        stopping = asyncio.Event()
        stopping.set()
        settings = SimpleNamespace(shutdown_timeout=given_s)
        served: Any = SimpleNamespace(settings=settings, servings=[], drain=drain)
        await run._drain_when(stopping, served, None, server)

    server: Any = SimpleNamespace(config=SimpleNamespace(timeout_graceful_shutdown=None), should_exit=False)
    asyncio.run(main())
    assert server.config.timeout_graceful_shutdown == left_s and server.should_exit


@pytest.mark.thorough
@pytest.mark.parametrize("stream", [False, True])
def test_who_reads_slowly_gets_all_of_an_answer(start: Any, open_stream: Any, stream: bool) -> None:
    """More than sockets hold, of which nothing is read before the server has begun to end."""
    server = start()
    ask = {**LONG, "n": 16, "logprobs": 20, "stream": stream}
    connection = open_stream(server, ask, "connection: close")
    wait_until(lambda: server.metrics()["vllm:request_success_total"] == 16, server)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(run.CLOSING_S + 0.5)
    data = read(connection)
    assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}}}")
    assert server.wait_for_end() == 0


def test_health_answers_while_the_model_loads_and_sigterm_waits_no_longer_than_told(
    start: Any, open_stream: Any
) -> None:
    server = start("--shutdown-timeout", "0.1", is_ready=False, is_poisoned=True, is_loading_held=True, is_fresh=True)
    seen = [server.http.get("/health") for _ in range(3)]
    assert all(each.status_code == 503 and each.json()["status"] == "loading" for each in seen)
    early = server.http.post("/v1/completions", json={"prompt": "Once"})
    assert early.status_code == 503 and early.headers["retry-after"]
    server.gate.open()
    wait_until(lambda: seen.append(server.http.get("/health")) or seen[-1].status_code == 200, server)
    assert server.http.post("/v1/completions", json={"prompt": "Once"}).status_code == 200
    progress = [each.json()["progress"] for each in seen[:-1]]
    assert progress == sorted(progress) and 0 <= progress[0] <= progress[-1] <= 1
    connection = open_stream(server, {**LONG, "logit_bias": {"1": 0.5}})  # hangs: see poisoned_worker.py
    wait_until(lambda: server.metrics()["vllm:generation_tokens_total"] >= 3)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait_for_end() == 0
    told = read(connection)
    assert b"the server is shutting down" in told and b'"code":"shutting_down"' in told


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "albireo", "serve", "--port", "0", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "model_type" in line]
    assert len(said) == 1 and said[0].startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", [None, "{"], ids=["missing", "damaged"])
def test_a_tokenizer_that_cannot_be_read_ends_the_server(tmp_path: Path, text: str | None) -> None:
    """The engine runs without one: the server alone notices."""
    shutil.copytree(BUNDLED, tmp_path / "story")
    (tmp_path / "story" / "tokenizer.json").unlink()
    if text is not None:
        (tmp_path / "story" / "tokenizer.json").write_text(text)
    command = [sys.executable, "-m", "albireo", "serve", "--port", "0", str(tmp_path / "story")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"\nerror: {tmp_path}/story/tokenizer.json: is " in done.stderr


def test_a_port_that_is_taken_ends_the_server(server: Any) -> None:
    port = server.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "albireo", "serve", "--port", port], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and f"error: cannot listen on 127.0.0.1:{port}" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_does_not_come_back_ends_the_server(start: Any, open_stream: Any) -> None:
    server = start(is_poisoned=True, is_fresh=True)
    connection = open_stream(server, {**LONG, "logit_bias": {"1": 0.5}})
    wait_until(lambda: server.metrics()["vllm:generation_tokens_total"] >= 3)

    def kill() -> bool:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # the server has heard of its end, or ended
            for worker in server.workers():
                os.kill(worker, signal.SIGSEGV)
        return server.process.poll() is not None

    wait_until(kill)
    assert server.wait_for_end() == 1
    assert b'"error"' in read(connection)
    assert any(line.startswith("error: the engine process ended again and again") for line in server.lines)


def test_the_api_process_has_no_weights_and_no_native_code(server: Server) -> None:
    assert server.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 2}).status_code == 200
    (worker,) = server.workers()
    maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in (server.process.pid, worker)}
    for mapped in ("_native", "ledger"):
        assert (mapped in maps[server.process.pid], mapped in maps[worker]) == (False, True)
