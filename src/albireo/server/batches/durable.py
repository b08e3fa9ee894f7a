"""Files that are whole whenever the machine stops: written aside and renamed, or appended to and synced.

Used by store.py and results.py. Does not know what is in them. All of it blocks.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from albireo.errors import ConfigError
from albireo.system import to_disk


def write_whole(path: Path, data: bytes) -> None:
    """The file holds the old bytes or these, never a part of them. Raises: OSError."""
    aside = path.with_name(f"{path.name}.tmp")
    with open(aside, "wb", opener=private) as file:
        file.write(data)
        file.flush()
        to_disk(file.fileno())
    os.replace(aside, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """What was made, renamed and removed in it stays so."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        to_disk(number)
    finally:
        os.close(number)


def private(path: str, flags: int) -> int:
    """For open(): a file that only this user can read, since prompts are in it."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class Appended:
    """A file that grows. Invariant: its first num_bytes are on the disk and never change; what is behind them counts
    as not there, and is written over."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        """Open it, or make it. Args: num_bytes: of what is there, so much counts."""
        self.path, self.num_bytes = path, num_bytes
        self._number = private(str(path), os.O_RDWR | os.O_CREAT)
        os.ftruncate(self._number, num_bytes)
        to_disk(self._number)
        sync_directory(path.parent)

    def write(self, data: bytes) -> None:
        """Put data behind what counts, on the disk; it counts once num_bytes says so. Raises: OSError."""
        left, at = memoryview(data), self.num_bytes
        while left:
            num = os.pwrite(self._number, left, at)
            left, at = left[num:], at + num
        to_disk(self._number)

    def close(self) -> None:
        """What does not count is cut off."""
        if self._number >= 0:
            os.ftruncate(self._number, self.num_bytes)
            os.close(self._number)
            self._number = -1


class Lock:
    """Held by one process at a time; gone with it, however it ends."""

    def __init__(self, path: Path, what: str) -> None:
        """Take it. Raises: ConfigError when another process has it."""
        self._number = private(str(path), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._number)
            raise ConfigError(f"{what} is in use by another process; end it, or name another") from None

    def release(self) -> None:
        """Let others have it."""
        if self._number >= 0:
            os.close(self._number)
            self._number = -1
