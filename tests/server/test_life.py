"""Clients that leave, queues that are full, deadlines, slow readers, signals, engines that cannot run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from server_process import wait_until

LONG: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 500, "ignore_eos": True, "stream": True, "seed": 1}


def open_stream(server: Any, ask: dict[str, Any], *headers: str) -> socket.socket:
    """A request whose answer nobody has read yet."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect((host, int(port)))
    body = json.dumps(ask).encode()
    lines = ["POST /v1/completions HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)
    return connection


def running(server: Any) -> float:
    return server.metrics()["vllm:num_requests_running"]


def test_a_client_that_leaves_frees_its_blocks(start: Any) -> None:
    server = start("--max-num-seqs", "2")
    for ask in ({**LONG, "n": 16}, {**LONG, "n": 16, "stream": False}, {**LONG, "n": 2}):
        before = server.metrics()
        connection = open_stream(server, {**ask, "max_tokens": 505})
        wait_until(lambda: running(server) > 0)
        connection.close()
        wait_until(lambda: running(server) == 0)
        after = server.metrics()
        assert after["vllm:kv_cache_usage_perc"] == 0
        aborted = after["vllm:request_success_total"] - before["vllm:request_success_total"]
        assert aborted == ask.get("n", 1)
        made = after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
        assert made < 505 * ask.get("n", 1)
    assert server.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 3}).status_code == 200


def test_a_full_queue_is_a_429(start: Any) -> None:
    server = start("--max-num-seqs", "1", "--max-num-queued-requests", "2")
    waiting = [open_stream(server, {**LONG, "n": 32, "request_id": "first"})]
    wait_until(lambda: running(server) == 1)
    waiting += [open_stream(server, {**LONG, "request_id": name}) for name in "ab"]
    for name in "ab":
        wait_until(lambda name=name: server.http.get(f"/v1/requests/cmpl-{name}/explain").status_code == 200)
    with pytest.raises(openai.RateLimitError) as raised:
        server.client().completions.create(model="story", prompt="Once", max_tokens=1)
    assert int(raised.value.response.headers["retry-after"]) >= 1
    assert server.metrics()["vllm:admission_rejections_total"] == 1
    behind = server.http.get("/v1/requests/cmpl-b/explain").json()["queued_behind"]
    assert (behind["running"], behind["waiting"]) == (1, 1)
    for connection in waiting:
        connection.close()
    wait_until(lambda: server.metrics()["vllm:num_requests_waiting"] == 0)
    answer = server.client().completions.create(model="story", prompt="Once", max_tokens=1)
    assert answer.choices[0].finish_reason == "length"


def test_a_deadline(start: Any) -> None:
    server = start("--max-num-seqs", "1", "--request-timeout", "20")
    connection = open_stream(server, LONG)
    wait_until(lambda: running(server) == 1)
    client = server.client(default_headers={"x-request-timeout": "0.02"})
    with pytest.raises(openai.InternalServerError, match=r"longer than 0\.02 s") as raised:
        client.completions.create(model="story", prompt="Once", max_tokens=400, n=8)
    assert raised.value.status_code == 504
    connection.close()
    wait_until(lambda: running(server) == 0)
    bad = server.http.post("/v1/completions", json={"prompt": "a"}, headers={"x-request-timeout": "soon"})
    assert bad.status_code == 400


def test_a_client_that_does_not_read_is_given_up(start: Any) -> None:
    server = start("--reader-timeout", "0.3")
    connection = open_stream(server, {**LONG, "n": 16, "logprobs": 20, "request_id": "stuck"})
    wait_until(lambda: server.metrics()["vllm:request_success_total"] == 16)
    wait_until(lambda: any('"status":200' in line and "cmpl-" in line for line in list(server.lines)))
    account = server.http.get("/v1/requests/cmpl-stuck/explain").json()
    assert account["waited_for_reader_s"] >= 0.25
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], abs=1e-9)
    received = b""
    while chunk := connection.recv(1 << 16):
        received += chunk
    assert received.startswith(b"HTTP/1.1 200") and b"[DONE]" not in received
    connection.close()


def test_sigterm_lets_what_runs_finish(start: Any) -> None:
    server = start("--max-num-seqs", "1")
    unread = {**LONG, "n": 8, "logprobs": 20}  # more than sockets hold: the server cannot end before it is read
    asks = [unread, LONG, LONG]
    connections = [open_stream(server, ask, "connection: close") for ask in asks]
    wait_until(lambda: running(server) == 1)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.http.get("/health").status_code == 503)
    refusal = server.http.post("/v1/completions", json=LONG)
    assert refusal.status_code == 503
    assert refusal.headers["retry-after"] and refusal.json()["error"]["code"] == "shutting_down"
    for ask, connection in zip(asks, connections, strict=True):
        data = b""
        while chunk := connection.recv(1 << 16):
            data += chunk
        assert data.count(b'"finish_reason":"length"') == ask.get("n", 1) and b"data: [DONE]" in data
        connection.close()
    assert server.process.wait(30) == 0


def test_sigterm_waits_no_longer_than_told(start: Any) -> None:
    server = start("--shutdown-timeout", "0.1", is_poisoned=True)
    with open_stream(server, {**LONG, "logit_bias": {"1": 0.5}}) as connection:  # hangs: see poisoned_worker.py
        wait_until(lambda: server.metrics()["vllm:generation_tokens_total"] >= 3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        data = b""
        while chunk := connection.recv(1 << 16):
            data += chunk
        assert b"the server is shutting down" in data


def test_health_answers_while_the_model_loads(start: Any) -> None:
    server = start(is_ready=False)
    seen = [server.http.get("/health")]
    while seen[-1].status_code != 200:
        early = server.http.post("/v1/completions", json={"prompt": "Once"})
        assert early.status_code == 200 or (early.status_code == 503 and early.headers["retry-after"])
        seen.append(server.http.get("/health"))
    assert seen[0].status_code == 503 and seen[0].json()["status"] == "loading"
    progress = [each.json()["progress"] for each in seen[:-1]]
    assert progress == sorted(progress) and 0 <= progress[0] <= progress[-1] <= 1


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "albireo", "serve", "--port", "0", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr


def test_a_port_that_is_taken_ends_the_server(server: Any) -> None:
    port = server.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "albireo", "serve", "--port", port], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and f"error: cannot listen on 127.0.0.1:{port}" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_does_not_come_back_ends_the_server(start: Any) -> None:
    server = start(is_poisoned=True)
    connection = open_stream(server, {**LONG, "logit_bias": {"1": 0.5}})
    wait_until(lambda: server.metrics()["vllm:generation_tokens_total"] >= 3)
    end = time.monotonic() + 50
    while server.process.poll() is None and time.monotonic() < end:
        for worker in server.workers():
            os.kill(worker, signal.SIGSEGV)
        time.sleep(0.02)
    assert server.process.wait(30) == 1
    data = b""
    while chunk := connection.recv(1 << 16):
        data += chunk
    connection.close()
    assert b'"error"' in data
    assert any(line.startswith("error: the engine process ended again and again") for line in server.lines)


def test_a_worker_does_not_outlive_its_server(start: Any) -> None:
    server = start()
    (worker,) = server.workers()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(30)
    wait_until(
        lambda: not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]
    )


def test_the_api_process_has_no_weights_and_no_native_code(start: Any) -> None:
    server = start()
    assert server.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 2}).status_code == 200
    (worker,) = server.workers()
    maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in (server.process.pid, worker)}
    for mapped in ("_native", "ledger"):
        assert (mapped in maps[server.process.pid], mapped in maps[worker]) == (False, True)
