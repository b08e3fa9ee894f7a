"""What is asked of Linux; see the package. Its files are read each time: what they say changes."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

#: Of a Unix socket, in bytes: there are 108, one of them for the end.
LONGEST_SOCKET_PATH = 107


def total_memory() -> int | None:
    """Bytes of the machine; None: it does not say."""
    return _meminfo("MemTotal")


def available_memory() -> int | None:
    """Bytes that nobody uses now, or that would be given up for others, as the kernel guesses."""
    return _meminfo("MemAvailable")


def _meminfo(key: str) -> int | None:
    for line in _text(_MEMINFO).splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    return None


def cpuinfo() -> str:
    """Lines "name : value" about each processor, with the names of Linux' /proc/cpuinfo; empty: it does not say."""
    return _text(_CPUINFO)


def caches(folder: Path = _CACHES) -> list[tuple[str, str]]:
    """Of a core, what it reads data through, and sizes: ("L1d", "48K"). A level that is not told is ""."""
    found = []
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_text(index / name).strip() for name in ("level", "type", "size"))
        if size and kind != "Instruction":
            found.append((f"L{level}{'d' if kind == 'Data' else ''}" if level else "", size))
    return found


def usable_processors() -> int:
    """Logical ones that this process may run on."""
    return len(os.sched_getaffinity(0))


def keep_to_processors(cpus: Iterable[int]) -> None:
    """Run on these from now on, the threads that are started as well."""
    os.sched_setaffinity(0, cpus)


def resident_bytes(pid: int) -> int:
    """Memory of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def most_open_files(wanted: int) -> int:
    """Of files that a process wants to have open, as many as its own limit may be raised to."""
    return wanted


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a Unix socket. Raises: OSError."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def swap_directories(first: Path, second: Path) -> None:
    """Each has the name of the other, in one step. Raises: OSError; EINVAL, ENOSYS, EOPNOTSUPP, ENOTSUP: this file
    system cannot."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None:  # a C library before glibc 2.28
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(second))
    if swap(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(second))


def to_disk(number: int) -> None:
    """What was written to a file, or changed in a directory, outlives a machine that stops. Raises: OSError."""
    os.fsync(number)


def will_read_once(number: int) -> None:
    """A file is about to be read from begin to end."""
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
