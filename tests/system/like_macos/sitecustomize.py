"""Makes an interpreter on Linux like one on macOS, before anything else runs in it: with this folder on PYTHONPATH.

What Linux has and macOS has not is gone from os, signal, socket, select, resource, errno, mmap and fcntl; nothing below
/proc and /sys can be opened, listed or found; the C library has the functions that src/albireo/system/macos.py calls,
and not those of Linux; processes are spawned. The native core and other packages' native code are still Linux': what
they ask the system is not seen here. Lists are of what Python documents as Linux' own, and of what its modules lack in
builds for macOS.
"""

from __future__ import annotations

import _socket
import builtins
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import struct
import sys
import sysconfig
import types
from typing import Any

sysconfig.get_config_vars()  # read by a name that has the platform in it

_ABSENT: dict[Any, tuple[str, ...]] = {
    os: (
        "sched_", "SCHED_", "posix_fadvise", "posix_fallocate", "POSIX_FADV_", "copy_file_range", "eventfd", "EFD_",
        "memfd_create", "MFD_", "pidfd_", "PIDFD_", "P_PIDFD", "splice", "SPLICE_", "getrandom", "GRND_", "pipe2",
        "getresuid", "getresgid", "setresuid", "setresgid", "getxattr", "setxattr", "listxattr", "removexattr",
        "XATTR_", "O_TMPFILE", "O_PATH", "O_DIRECT", "O_LARGEFILE", "O_NOATIME", "fdatasync", "waitid", "RWF_",
        "setns", "unshare", "CLONE_", "timerfd_", "TFD_",
    ),
    signal: ("sigwaitinfo", "sigtimedwait", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGPOLL", "SIGSTKFLT", "pidfd_"),
    _socket: (
        "SO_PEERCRED", "SO_PASSCRED", "SO_PEERSEC", "SO_BINDTODEVICE", "SO_DOMAIN", "SO_PROTOCOL", "SO_INCOMING_CPU",
        "SO_MARK", "SO_PRIORITY", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "SCM_CREDENTIALS", "AF_NETLINK", "AF_PACKET",
        "AF_ALG", "AF_CAN", "AF_VSOCK", "AF_TIPC", "AF_RDS", "AF_QIPCRTR", "TCP_CORK", "TCP_DEFER_ACCEPT",
        "TCP_QUICKACK", "TCP_USER_TIMEOUT", "MSG_CMSG_CLOEXEC", "MSG_CONFIRM", "MSG_ERRQUEUE", "MSG_MORE",
    ),
    select: ("epoll", "EPOLL"),
    resource: ("prlimit", "RUSAGE_THREAD", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RT", "RLIMIT_SIGPENDING"),
    errno: ("EBADE", "EBADFD", "EBADR", "EBADSLT", "ECOMM", "EREMOTEIO", "EUCLEAN", "ENOMEDIUM", "EMEDIUMTYPE"),
    mmap: (
        "MAP_POPULATE", "MAP_DENYWRITE", "MAP_EXECUTABLE", "MAP_STACK", "MADV_HUGEPAGE", "MADV_NOHUGEPAGE",
        "MADV_REMOVE", "MADV_DONTFORK", "MADV_DOFORK", "MADV_HWPOISON", "MADV_MERGEABLE", "MADV_UNMERGEABLE",
        "MADV_DONTDUMP", "MADV_DODUMP",
    ),
    fcntl: ("F_OFD_", "F_SETPIPE_SZ", "F_GETPIPE_SZ", "F_ADD_SEALS", "F_SEAL_", "F_NOTIFY", "DN_", "F_SETLEASE"),
}  # fmt: skip
_HIDDEN = ("/proc", "/sys")
_SYSCTL: dict[str, int | str] = {
    "hw.memsize": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    "machdep.cpu.brand_string": "Apple M2 (a stand-in)",
    "hw.perflevel0.l1dcachesize": 131072,
    "hw.perflevel0.l2cachesize": 16777216,
    "kern.maxfilesperproc": 10240,
}
_FREE_PAGES, _INACTIVE_PAGES = 1000, os.sysconf("SC_AVPHYS_PAGES")

_unhidden = False
_peer = {(0, 2): lambda pid, uid: struct.pack("i", pid), (0, 1): lambda pid, uid: struct.pack("2I68x", 0, uid)}
_PEERCRED = _socket.SO_PEERCRED
_libc = ctypes.CDLL(None, use_errno=True)
_cdll, _stat, _fcntl, _open, _uname = ctypes.CDLL, os.stat, fcntl.fcntl, builtins.open, os.uname()
_getsockopt = _socket.socket.getsockopt


def _is_hidden(path: Any) -> bool:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    elif isinstance(path, os.PathLike):
        path = os.fspath(path)
    return not _unhidden and isinstance(path, str) and any(path == top or path.startswith(top + "/") for top in _HIDDEN)


def _hide(event: str, args: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and args and _is_hidden(args[0]):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), args[0])


def _hiding_stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
    if _is_hidden(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return _stat(path, *args, **kwargs)


class _Library:
    """libSystem, as far as macos.py calls it."""

    @staticmethod
    def sysctlbyname(name: bytes, into: Any, size: Any, new: None, new_size: Any) -> int:
        value = _SYSCTL.get(name.decode())
        if value is None or new is not None or new_size.value:
            return -1
        if isinstance(value, int):
            into._obj.value, size._obj.value = value, 8
        else:
            into.value, size._obj.value = value.encode(), len(value) + 1
        return 0

    @staticmethod
    def mach_host_self() -> int:
        return 5

    @staticmethod
    def host_statistics64(host: Any, kind: int, words: Any, count: Any) -> int:
        if (host.value, kind, count._obj.value) != (5, 4, 38):
            return 4  # KERN_INVALID_ARGUMENT
        words[0], words[1], words[2] = _FREE_PAGES, 7, _INACTIVE_PAGES
        return 0

    @staticmethod
    def proc_pidinfo(pid: int, kind: int, argument: Any, into: Any, size: int) -> int:
        global _unhidden
        if (kind, size, argument.value) != (4, 96, 0):
            return 0
        try:
            _unhidden = True
            with _open(f"/proc/{pid}/statm") as file:
                virtual, resident = (int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in file.read().split()[:2])
        except OSError:
            return 0
        finally:
            _unhidden = False
        into[:16] = struct.pack("<2Q", virtual, resident)
        return 96

    @staticmethod
    def renamex_np(first: bytes, second: bytes, flags: int) -> int:
        return int(_libc.renameat2(-100, first, -100, second, flags))  # which has the same bit for it


class _CDLL(ctypes.CDLL):
    def __new__(cls, name: Any = None, *args: Any, **kwargs: Any) -> Any:
        return _Library() if name is None else _cdll(name, *args, **kwargs)


def _locked_open(number: Any, command: int, *args: Any) -> Any:
    if command == 51:  # F_FULLFSYNC
        os.fsync(number)
        return 0
    return _fcntl(number, command, *args)


def _socket_option(self: Any, level: int, option: int, *args: Any) -> Any:
    if (level, option) in _peer and args:
        pid, uid, _ = struct.unpack("3i", _getsockopt(self, _socket.SOL_SOCKET, _PEERCRED, 12))
        return _peer[level, option](pid, uid)
    if (level, option) == (_socket.SOL_SOCKET, _PEERCRED):
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
    return _getsockopt(self, level, option, *args)


for _module, _names in _ABSENT.items():
    for _name in [each for each in vars(_module) if each.startswith(_names) and each != "O_DIRECTORY"]:
        delattr(_module, _name)
sys.platform = "darwin"
os.uname = lambda: os.uname_result(("Darwin", _uname[1], "24.0.0", "Darwin Kernel Version 24.0.0", _uname[4]))
os.stat = _hiding_stat  # type: ignore[assignment]
ctypes.CDLL = _CDLL  # type: ignore[misc]
fcntl.fcntl = _locked_open  # type: ignore[assignment]

import socket  # noqa: E402  # which copies what is left of _socket

socket.socket.getsockopt = _socket_option  # type: ignore[method-assign, assignment]
# where urllib looks for proxies on a Mac
_proxies = types.ModuleType("_scproxy")
_proxies._get_proxy_settings = _proxies._get_proxies = dict  # type: ignore[attr-defined]
sys.modules["_scproxy"] = _proxies
sys.addaudithook(_hide)
