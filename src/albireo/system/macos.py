"""What is asked of macOS, through its C library; see the package.

Numbers are those of its headers, and tools/check_macos.py holds them against these. Never run on a Mac: docs/macos.md.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

#: Of a Unix socket, in bytes: there are 104, one of them for the end.
LONGEST_SOCKET_PATH = 103

#: sys/un.h, and sys/ucred.h: struct xucred has a version, then the user.
SOL_LOCAL, LOCAL_PEERCRED, LOCAL_PEERPID, XUCRED_BYTES = 0, 1, 2, 76
#: mach/host_info.h and mach/vm_statistics.h: words of struct vm_statistics64, of which the first are free, active,
#: inactive.
HOST_VM_INFO64, VM_WORDS = 4, 38
#: sys/proc_info.h: struct proc_taskinfo begins with the virtual and the resident size, of 8 bytes each.
PROC_PIDTASKINFO, TASK_BYTES = 4, 96
#: sys/stdio.h, sys/fcntl.h
RENAME_SWAP, F_FULLFSYNC = 2, 51

#: Names of caches, from the processor outwards. Those of its fastest cores, where there are several kinds.
_CACHES = {"L1d": "l1dcachesize", "L2": "l2cachesize", "L3": "l3cachesize"}
#: What names of Linux' /proc/cpuinfo are called.
_CPUINFO = {
    "model name": "machdep.cpu.brand_string",
    "cpu family": "machdep.cpu.family",
    "model": "machdep.cpu.model",
    "stepping": "machdep.cpu.stepping",
}


def total_memory() -> int | None:
    """As linux.py has it."""
    return _number("hw.memsize") or None


def available_memory() -> int | None:
    """As linux.py has it: pages that are free, and those that were not used for some time."""
    words, count = (ctypes.c_uint32 * VM_WORDS)(), ctypes.c_uint32(VM_WORDS)
    if _library().host_statistics64(_host(), HOST_VM_INFO64, words, ctypes.byref(count)) != 0:
        return None
    # pages of the kernel, which are four of those that a process for Intel has on Apple silicon
    return int(words[0] + words[2]) * (_number("vm.pagesize") or os.sysconf("SC_PAGE_SIZE"))


def cpuinfo() -> str:
    """As linux.py has it, of one processor."""
    found = {name: _text(called) if name == "model name" else _number(called) for name, called in _CPUINFO.items()}
    return "".join(f"{name} : {value}\n" for name, value in found.items() if value)


def caches() -> list[tuple[str, str]]:
    """As linux.py has it."""
    found = [(name, _number(f"hw.perflevel0.{key}") or _number(f"hw.{key}")) for name, key in _CACHES.items()]
    return [(name, f"{size >> 10}K") for name, size in found if size]


def usable_processors() -> int:
    """As linux.py has it: all of them."""
    return os.cpu_count() or 1


def keep_to_processors(cpus: Iterable[int]) -> None:
    """As linux.py has it; nothing, since macOS decides that alone."""


def resident_bytes(pid: int) -> int:
    """As linux.py has it, of processes of the same user."""
    task = ctypes.create_string_buffer(TASK_BYTES)
    found = _library().proc_pidinfo(pid, PROC_PIDTASKINFO, ctypes.c_uint64(0), task, TASK_BYTES)
    return int.from_bytes(task.raw[8:16], "little") if found == TASK_BYTES else 0


def most_open_files(wanted: int) -> int:
    """As linux.py has it: the kernel has a limit of its own, and refuses more, also where the process has none."""
    return min(wanted, _number("kern.maxfilesperproc") or wanted)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """As linux.py has it."""
    (pid,) = struct.unpack("i", connection.getsockopt(SOL_LOCAL, LOCAL_PEERPID, 4))
    _, uid = struct.unpack_from("2I", connection.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, XUCRED_BYTES))
    return pid, uid


def swap_directories(first: Path, second: Path) -> None:
    """As linux.py has it."""
    if _library().renamex_np(os.fsencode(first), os.fsencode(second), RENAME_SWAP) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(second))


def to_disk(number: int) -> None:
    """As linux.py has it. fsync() would leave it in the memory of the disk."""
    try:
        fcntl.fcntl(number, F_FULLFSYNC)
    except OSError:  # a file system of another machine, say
        os.fsync(number)


def will_read_once(number: int) -> None:
    """As linux.py has it; nothing, since macOS sees that itself."""


def _number(name: str) -> int:
    """A number of sysctl(3), of 4 or 8 bytes; 0 where there is none of that name."""
    found = ctypes.c_uint64(0)
    size = ctypes.c_size_t(8)
    failed = _library().sysctlbyname(name.encode(), ctypes.byref(found), ctypes.byref(size), None, ctypes.c_size_t(0))
    return 0 if failed else int(found.value)


def _text(name: str) -> str:
    """A text of sysctl(3); empty where there is none of that name."""
    found = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t(256)
    failed = _library().sysctlbyname(name.encode(), found, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else found.value.decode(errors="replace").strip()


@cache
def _library() -> Any:
    """libSystem, which every process has."""
    return ctypes.CDLL(None, use_errno=True)


@cache
def _host() -> Any:
    """A right of Mach to ask the kernel; one is enough."""
    return ctypes.c_uint32(_library().mach_host_self())
