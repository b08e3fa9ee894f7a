"""What macOS would be asked, on Linux: by interpreters that have what it offers and nothing more (like_macos/).

It shows that no function of Linux alone is called, and what is made of answers; not that the answers are a Mac's, nor
anything of the native core, which is Linux' here (docs/macos.md).
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from albireo import system
from albireo.system import linux, macos
from server_process import Server

LIKE_MACOS = Path(__file__).parent / "like_macos"
WORDS = ("--seed", "7", "--max-tokens", "8", "Once upon a time")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a stand-in for a Mac, of Linux")


@pytest.fixture(autouse=True)
def like_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(LIKE_MACOS))


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def albireo(*words: str) -> str:
    return run("-m", "albireo", *words)


def test_both_systems_answer_the_same_questions() -> None:
    for name in system.__all__:
        assert type(getattr(macos, name)) is type(getattr(linux, name)), name


def test_the_stand_in_has_nothing_of_linux() -> None:
    tried = """
import multiprocessing, os, pathlib, select, signal, socket, sys
assert sys.platform == "darwin" and os.uname().sysname == "Darwin"
assert not any(hasattr(os, name) for name in ("sched_getaffinity", "posix_fadvise", "memfd_create", "pidfd_open"))
assert not hasattr(socket, "SO_PEERCRED") and not hasattr(select, "epoll") and not hasattr(signal, "sigtimedwait")
assert multiprocessing.get_start_method() == "spawn"
assert not pathlib.Path("/proc/self").exists() and not os.path.isdir("/sys/devices")
for look in (lambda: open("/proc/meminfo"), lambda: os.listdir("/sys"), lambda: os.open("/proc/cpuinfo", os.O_RDONLY)):
    try:
        look()
    except FileNotFoundError:
        continue
    raise AssertionError("it was found")
"""
    run("-c", tried)


def test_what_a_mac_says_of_itself() -> None:
    asked = """
import json, os, socket
from albireo import system
from albireo.backends.cpu.fingerprint import cache_bytes, caches_text, cpu_text
ours, theirs = socket.socketpair()
print(json.dumps({
    "platform": system.total_memory.__module__, "total": system.total_memory(), "available": system.available_memory(),
    "cpu": cpu_text(), "caches": caches_text(), "bytes": cache_bytes(), "processors": system.usable_processors(),
    "files": [system.most_open_files(65536), system.most_open_files(256)], "peer": system.peer_of(ours),
    "resident": system.resident_bytes(os.getpid()), "gone": system.resident_bytes(2**22 + 1), "self": os.getpid(),
}))
"""
    found = json.loads(run("-c", asked))
    assert found["platform"] == "albireo.system.macos"
    assert found["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 1000 * os.sysconf("SC_PAGE_SIZE") < found["available"] <= found["total"]
    assert found["cpu"] == "Apple M2 (a stand-in)"
    assert (found["caches"], found["bytes"]) == ("L1d 128K, L2 16384K", 16 << 20)
    assert found["processors"] == os.cpu_count()
    assert found["files"] == [10240, 256], "no more than the kernel lets a process have"
    assert found["peer"] == [found["self"], os.getuid()]
    assert found["resident"] > 1 << 20 and found["gone"] == 0


def test_memory_is_told_in_pages_of_the_kernel_whatever_a_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(_host: object, _kind: int, words: Any, _count: object) -> int:
        words[0], words[2] = 3, 4
        return 0

    monkeypatch.setattr(macos, "_library", lambda: SimpleNamespace(host_statistics64=count))
    monkeypatch.setattr(macos, "_host", lambda: None)
    for told, size in ((16384, 16384), (0, os.sysconf("SC_PAGE_SIZE"))):
        monkeypatch.setattr(macos, "_number", {"vm.pagesize": told}.get)
        assert macos.available_memory() == 7 * size


def test_what_is_written_reaches_the_disk_where_the_file_system_can_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(os, "fsync", lambda number: said.append(number))
    monkeypatch.setattr(macos.fcntl, "fcntl", lambda *asked: said.append(asked))
    macos.to_disk(7)
    assert said == [(7, macos.F_FULLFSYNC)]

    def cannot(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "")

    monkeypatch.setattr(macos.fcntl, "fcntl", cannot)
    macos.to_disk(8)
    assert said[1:] == [8]


def test_a_build_takes_the_place_of_one_in_a_single_step_and_generates_the_same_text(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    for _ in range(2):
        albireo("build", "-o", str(engine), "--force", "--no-measure")
    assert os.listdir(tmp_path) == ["engine"]
    said = albireo("generate", "--model", str(engine), *WORDS)
    del os.environ["PYTHONPATH"]
    assert albireo("generate", *WORDS) == said != ""


def test_the_doctor_finds_nothing_wrong_with_it() -> None:
    found = json.loads(albireo("doctor", "--json", "--num-threads", "1"))
    assert found["machine"]["cpu"] == "Apple M2 (a stand-in)" and found["machine"]["system"].startswith("Darwin")
    assert found["machine"]["huge_pages"] is None and found["machine"]["cpu_quota"] is None
    assert found["native"]["error"] is None and found["native"]["numa"]["nodes"] == []
    assert found["missing"] == []


@pytest.fixture
def server(like_macos: None, tmp_path: Path) -> Iterator[Server]:
    several = ("--data-parallel-size", "2", "--num-threads", "2")
    started = Server(*several, "--batch-dir", str(tmp_path)).wait_until_ready()
    yield started
    started.stop()


def test_a_server_takes_its_own_engine_processes_for_its_own(server: Server) -> None:
    answer = server.http.post("/v1/completions", json={"model": "", "prompt": "Once", "max_tokens": 4, "seed": 1})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4
    workers = server.workers()
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once", "max_tokens": 1}}
    kept = server.http.post("/v1/files", files={"file": ("a", json.dumps(line))}, data={"purpose": "batch"})
    assert kept.status_code == 200, kept.text
    with server.http.stream("GET", "/v1/stats") as events:
        event = next(json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
    assert event["now"]["engine_bytes"] > 1 << 20 and event["now"]["server_bytes"] > 1 << 20
    assert len(workers) == 2 and server.num_restarts() == 0 and server.workers() == workers
