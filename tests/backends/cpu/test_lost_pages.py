"""A mapped file that becomes shorter while it is read: the process ends, and says which file it was."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
from pathlib import Path

import pytest

#: Maps a file, has it cut, and reads what is gone.
READ = """
import faulthandler, mmap, os, sys
from albireo.backends.cpu.machine import name_lost_pages
if sys.argv[2] == "handled":
    faulthandler.enable()
name_lost_pages()
name_lost_pages()
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(sys.argv[1], 1)
    print("before", flush=True)
    print(mapped[2 * mmap.PAGESIZE + 5])
"""


@pytest.mark.parametrize(
    ("name", "shown"),
    [("model.safetensors", "model.safetensors"), ("Größe 1\nzwei", "Größe 1\\012zwei")],
    ids=["plain", "odd"],
)
def test_the_file_and_the_byte_are_named(name: str, shown: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(4 * mmap.PAGESIZE))
    run = subprocess.run([sys.executable, "-c", READ, path, "alone"], capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGBUS
    assert run.stdout == "before\n"
    byte = 2 * mmap.PAGESIZE + 5
    assert run.stderr == (
        f"albireo: {path.parent}/{shown}: ends before byte {byte} now, which it had when it was opened; something "
        "writes to it: wait until that is done and start again, and replace files by renaming others to their names\n"
    )


def test_who_handles_it_already_goes_on_after(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(4 * mmap.PAGESIZE))
    run = subprocess.run([sys.executable, "-c", READ, path, "handled"], capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGBUS
    assert run.stderr.startswith(f"albireo: {path}: ends before byte ")
    assert "Fatal Python error: Bus error" in run.stderr


def test_one_that_a_process_sends_ends_it_without_a_word() -> None:
    send = "import os, signal; from albireo.backends.cpu.machine import name_lost_pages as name; name(); "
    command = [sys.executable, "-c", send + "os.kill(os.getpid(), signal.SIGBUS); print('it goes on')"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGBUS, "", "")


def test_threads_that_meet_it_at_once_say_it_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(64 * mmap.PAGESIZE))
    read = READ.partition("    print(mapped")[0] + (
        "    from concurrent.futures import ThreadPoolExecutor\n"
        "    import numpy as np\n"
        "    touch = lambda i: np.frombuffer(mapped, np.uint8)[i * mmap.PAGESIZE :].copy()\n"  # without the GIL
        "    list(ThreadPoolExecutor(8).map(touch, range(1, 60)))\n"
    )
    run = subprocess.run([sys.executable, "-c", read, path, "alone"], capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGBUS
    assert run.stderr.count("ends before byte") == 1 and run.stderr.count("\n") == 1
