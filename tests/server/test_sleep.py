"""A server whose engine gives its memory back: when told to, and after a while without a request."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.engine_process.model_files import marks_of, told
from albireo.errors import EngineError
from albireo.server import run
from server_process import Server, has_ended, wait_until

ASK: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """One that keeps prefixes in files, and where."""
    folder = tmp_path_factory.mktemp("kept")
    made = Server("--prefix-cache-dir", str(folder), is_poisoned=True).wait_until_ready()
    yield made, folder
    made.stop()


def test_it_sleeps_when_told_to_and_wakes_for_a_request(kept: tuple[Server, Path], open_stream: Any) -> None:
    server, _ = kept
    http, before, num_restarts = server.http, server.metrics(), server.num_restarts()
    first = http.post("/v1/completions", json=ASK).json()
    server.gate.hold(1)
    connection = open_stream(server, {**ASK, "stream": True})
    wait_until(server.gate.is_holding, server)
    refusal = http.post("/sleep")
    assert refusal.status_code == 409 and "1 requests" in refusal.json()["error"]["message"]
    server.gate.open()
    assert b"HTTP/1.1 200" in connection.recv(1 << 16)
    wait_until(lambda: server.metrics_since(before)["vllm:request_success_total"] == 2, server)
    (worker,) = server.workers()
    assert http.post("/sleep?level=1").status_code == 200
    assert has_ended(worker) and server.workers() == []
    assert http.get("/is_sleeping").json() == {"is_sleeping": True}
    assert http.get("/health").json() == {"status": "asleep", "num_restarts": num_restarts}
    assert (
        'vllm:engine_sleep_state{engine="0",model_name="story",sleep_state="discard_all"} 1.0'
        in http.get("/metrics").text
    )
    assert http.post("/v1/completions", json=ASK).json()["choices"] == first["choices"]
    assert http.get("/is_sleeping").json() == {"is_sleeping": False}
    assert http.post("/sleep").status_code == 200 and http.post("/wake_up?tags=weights").status_code == 200
    assert http.get("/health").json() == {"status": "ok", "num_restarts": num_restarts} and len(server.workers()) == 1
    for path, field in (("/sleep?level=3", "level"), ("/wake_up?tags=all", "tags"), ("/sleep?mode=keep", "mode")):
        bad = http.post(path)
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, field)


def test_it_sleeps_by_itself_and_what_is_kept_in_files_is_there_when_it_wakes(start: Any, tmp_path: Path) -> None:
    server = start("--sleep-after", "0.2", "--prefix-cache-dir", str(tmp_path / "kept"))
    for name in ("a", "b"):
        wait_until(lambda: server.http.get("/is_sleeping").json()["is_sleeping"], server)
        wait_until(lambda: not server.workers(), server)
        answer = server.http.post("/v1/completions", json={**ASK, "prompt": [9] * 100, "request_id": name})
        usage = answer.json()["usage"]
        assert usage["completion_tokens"] == 12
        assert usage["prompt_tokens_details"]["cached_tokens"] == (96 if name == "b" else 0)
        parts = server.http.get(f"/v1/requests/cmpl-{name}/explain").json()["parts"]
        assert parts["queue_s"] > 0.05 and parts.get("restart_s", 0) == 0
    # lines are read by a thread
    wait_until(lambda: len(slept(server)) > 1, server)
    assert json.loads(slept(server)[0])["rest_s"] == 0.2


def test_weights_that_were_replaced_while_it_slept_are_named(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    server, weights = start(str(folder)), folder / "model.safetensors"
    assert server.http.post("/sleep").status_code == 200 and server.http.post("/wake_up").status_code == 200
    assert others(server) == [], "nothing was written"
    assert server.http.post("/sleep").status_code == 200
    shutil.copy(weights, tmp_path / "new")
    (tmp_path / "new").rename(weights)
    assert server.http.post("/v1/completions", json=ASK).status_code == 200
    (line,) = wait_until(lambda: others(server), server)
    assert "model.safetensors (another file); answers are from now on theirs" in line


def others(server: Server) -> list[str]:
    """Lines of the log, of each time that files were others than before."""
    return [line for line in list(server.lines) if "are others than before" in line]


def test_what_is_said_of_files_that_are_others(tmp_path: Path) -> None:
    for name in ("config.json", "a.safetensors", "b.safetensors"):
        (tmp_path / name).write_text("old")
    before = marks_of(tmp_path)
    assert told(before, marks_of(tmp_path)) is None and len(before) == 3
    (tmp_path / "a.safetensors").write_text("newer")
    (tmp_path / "b.safetensors").unlink()
    words = told(before, marks_of(tmp_path))
    assert words is not None and "a.safetensors (3 bytes, now 5), b.safetensors (gone); answers" in words
    assert not words.endswith("again")
    os.utime(tmp_path / "config.json", ns=(1, 1))
    (tmp_path / "tokenizer.json").write_text("{}")
    words = told(before, marks_of(tmp_path))
    assert words is not None and "config.json (written to), tokenizer.json (new)" in words
    assert words.endswith("start the server again")
    assert list(marks_of(tmp_path / "a.safetensors")) == ["a.safetensors"], "of a file itself"
    before = marks_of(tmp_path)
    for folder in (".git", "1_Pooling"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / ".gitattributes").write_text("")
    assert marks_of(tmp_path).keys() - before.keys() == {"1_Pooling/config.json"}
    parts = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for name in parts:
        (tmp_path / name).write_text("")
    assert list(marks_of(tmp_path / parts[0])) == parts


def slept(server: Server) -> list[str]:
    """Lines of the log, of each time that it fell asleep."""
    return [line for line in list(server.lines) if '"asleep"' in line]


def test_prefixes_are_forgotten_when_told_to_and_those_in_files_when_asked(kept: tuple[Server, Path]) -> None:
    server, folder = kept
    http = server.http

    def cached() -> int:
        usage = http.post("/v1/completions", json={**ASK, "prompt": [9] * 100}).json()["usage"]
        found: int = usage["prompt_tokens_details"]["cached_tokens"]
        return found

    def num_files() -> int:
        return len(list(folder.rglob("*.block")))

    before = num_files()
    assert (cached(), cached()) == (0, 96)
    wait_until(lambda: num_files() == before + 6, server)
    hits = server.metrics()["vllm:prefix_cache_hits_total"]
    assert http.post("/reset_prefix_cache").status_code == 200
    assert cached() == 96 and server.metrics()["vllm:prefix_cache_hits_total"] == hits + 96, "from the files"
    assert http.post("/sleep").status_code == 200
    assert http.post("/reset_prefix_cache?reset_running_requests=true").status_code == 200
    assert http.get("/is_sleeping").json() == {"is_sleeping": True}, "it had forgotten all"
    assert http.post("/reset_prefix_cache?reset_external=true").status_code == 200
    assert num_files() == 0 and http.get("/is_sleeping").json() == {"is_sleeping": False}
    assert (cached(), cached()) == (0, 96)
    for query, param in (("device=gpu", "device"), ("reset_external=maybe", "reset_external")):
        bad = http.post(f"/reset_prefix_cache?{query}")
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, param)
    assert http.post("/reset_prefix_cache?model=other").status_code == 404


def test_who_comes_just_then_does_not_end_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has work again when it is to sleep says so; later it sleeps as ever."""
    monkeypatch.setattr(run, "LOOK_S", 0.0)

    async def body() -> None:
        slept = asyncio.Event()
        told = [EngineError("it has work to do")]

        async def rest() -> None:
            if told:
                raise told.pop()
            slept.set()

        served: Any = SimpleNamespace(sleep_after_s=0.0, is_draining=False, rest=rest)
        looking = asyncio.create_task(run._rest(served))
        waiting = asyncio.create_task(slept.wait())
        await asyncio.wait((looking, waiting), return_when=asyncio.FIRST_COMPLETED)
        assert slept.is_set() and not looking.done()
        looking.cancel()
        waiting.cancel()

    asyncio.run(body())
