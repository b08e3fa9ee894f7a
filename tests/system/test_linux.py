"""What Linux says, read rightly, on a machine and as text."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from albireo.system import linux


def _write(folder: Path, index: int, **said: str) -> None:
    (folder / f"index{index}").mkdir()
    for name, value in said.items():
        (folder / f"index{index}" / name).write_text(value + "\n")


def test_caches(tmp_path: Path) -> None:
    _write(tmp_path, 0, level="1", type="Data", size="48K")
    _write(tmp_path, 1, level="1", type="Instruction", size="32K")
    _write(tmp_path, 2, level="2", type="Unified", size="1M")
    _write(tmp_path, 3, size="64K")
    assert linux.caches(tmp_path) == [("L1d", "48K"), ("L2", "1M"), ("", "64K")]
    assert linux.caches(tmp_path / "missing") == []


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "meminfo"
    monkeypatch.setattr(linux, "_MEMINFO", file)
    assert linux.total_memory() is None
    file.write_text("MemTotal:       24683896 kB\nMemFree:        100 kB\nMemAvailable:   200 kB\n")
    assert (linux.total_memory(), linux.available_memory()) == (24683896 << 10, 200 << 10)


def test_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert linux.peer_of(ours) == (os.getpid(), os.getuid())


def test_memory_of_a_process_that_is_gone() -> None:
    assert linux.resident_bytes(os.getpid()) > 1 << 20
    assert linux.resident_bytes(2**22 + 1) == 0  # the kernel gives no such number
