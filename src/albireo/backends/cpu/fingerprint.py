"""What this processor is, in words: enough that what was measured on it is not believed of another.

Called by api/tuning.py. Reads the operating system's files, and does not import the native core.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
#: Lines of /proc/cpuinfo that tell generations apart; virtual machines give several the same name.
_NUMBERS = ("cpu family", "model", "stepping")


def cpu_text(cpuinfo: str | None = None) -> str:
    """Name and numbers of the processor: "AMD EPYC, family 26, model 2, stepping 1"."""
    cpuinfo = _read(_CPUINFO) if cpuinfo is None else cpuinfo
    numbers = [(name.split()[-1], _line(name, cpuinfo)) for name in _NUMBERS]
    found = [_line("model name", cpuinfo) or platform.machine()]
    return ", ".join(found + [f"{name} {value}" for name, value in numbers if value])


def caches_text(folder: Path = _CACHES) -> str:
    """Sizes of the caches of a core: "L1d 48K, L2 1024K, L3 32768K"; empty where the system does not say."""
    found = []
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name).strip() for name in ("level", "type", "size"))
        if level and size and kind != "Instruction":
            found.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join(found)


def cache_bytes(folder: Path = _CACHES) -> int:
    """Of the largest cache; 0 where the system does not say."""
    found = [re.fullmatch(r"(\d+)K", _read(index / "size").strip()) for index in folder.glob("index*")]
    return max((int(size[1]) << 10 for size in found if size), default=0)


def _line(name: str, cpuinfo: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
