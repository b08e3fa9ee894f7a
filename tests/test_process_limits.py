"""Limits of the process alone: they count as the machine's, and what meets one is said in words."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from typing import Any

import pytest

from albireo.api import load as load_module
from albireo.api.machine.memory import machine_bytes
from albireo.config import EngineConfig
from albireo.errors import OutOfMemory
from albireo.process_limits import memory_limit, naming_shortages, shortage_of

ENDLESS = resource.RLIM_INFINITY


def limited(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    found = {getattr(resource, f"RLIMIT_{name}"): value for name, value in limits.items()}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (found.get(kind, ENDLESS), ENDLESS))


def run(*command: str, **limits: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        for name, value in limits.items():
            kind = getattr(resource, f"RLIMIT_{name}")
            resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))

    asked = [sys.executable, "-m", "albireo", *command]
    return subprocess.run(asked, capture_output=True, text=True, preexec_fn=limit, timeout=120)


def test_the_smaller_limit_is_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch)
    assert memory_limit() is None
    whole = machine_bytes()
    limited(monkeypatch, AS=3 << 28, DATA=1 << 29)
    assert memory_limit() == machine_bytes() == 1 << 29
    limited(monkeypatch, AS=3 << 28)
    assert memory_limit() == machine_bytes() == 3 << 28 < whole


def test_a_model_that_a_limit_has_no_room_for_is_one_line() -> None:
    found = run("generate", "Once", "--max-tokens", "2", "--kv-cache-memory-bytes", str(2 << 30), AS=1 << 30)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1 and "exceed the machine's 1.00 GiB" in found.stderr


@pytest.mark.parametrize(
    ("error", "limits", "words"),
    [
        (
            MemoryError(),
            {"AS": 1 << 30},
            ["no more memory, which may have 1.00 GiB (ulimit -v", "; raise that limit, or"],
        ),
        (MemoryError("std::bad_alloc"), {}, ["no more memory; lower kv_cache_memory_bytes"]),
        (RuntimeError("can't start new thread"), {"NPROC": 7}, ["no more threads or processes; its user may have 7"]),
        (RuntimeError("Resource temporarily unavailable"), {}, ["no more threads or processes; raise", "pids.max"]),
        (BlockingIOError(errno.EAGAIN, "fork"), {"NPROC": 9}, ["its user may have 9 of both (ulimit -u)"]),
        (OSError(errno.EMFILE, "open"), {"NOFILE": 12}, ["may have 12 files open (ulimit -n)"]),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else "",
)
def test_what_stands_for_a_limit_says_so(
    error: Exception, limits: dict[str, int], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, **limits)
    with pytest.raises(type(shortage_of(error))) as caught, naming_shortages():  # type: ignore[type-var]
        raise error
    for each in words:
        assert each in str(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), ValueError("can't start new thread"), OSError(errno.EIO, "x")]
)
def test_anything_else_is_left_as_it_is(error: Exception) -> None:
    assert shortage_of(error) is None
    with pytest.raises(type(error)) as caught, naming_shortages():
        raise error
    assert caught.value is error


def test_loading_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(load_module, "locate_model", refuse)
    with pytest.raises(OutOfMemory, match="no more memory"):
        load_module.load(EngineConfig())
