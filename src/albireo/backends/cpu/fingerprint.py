"""What this processor is, in words: enough that what was measured on it is not believed of another.

Called by api/machine/tuning.py. Asks the operating system once, and does not import the native core.
"""

from __future__ import annotations

import platform
import re
from functools import cache

from albireo import system

#: Lines of /proc/cpuinfo that tell generations apart, of x86 and of Arm; virtual machines give several the same name.
_NUMBERS = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant", "CPU revision")
#: Arm's processors say who made them and which part they are, not their name. Source: the reference manual of each
#: (MIDR_EL1), as Linux has them in arch/arm64/include/asm/cputype.h.
_ARM_PARTS = {
    "0x41": {
        "0xd03": "Cortex-A53",
        "0xd05": "Cortex-A55",
        "0xd07": "Cortex-A57",
        "0xd08": "Cortex-A72",
        "0xd09": "Cortex-A73",
        "0xd0a": "Cortex-A75",
        "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse N1",
        "0xd0d": "Cortex-A77",
        "0xd40": "Neoverse V1",
        "0xd41": "Cortex-A78",
        "0xd44": "Cortex-X1",
        "0xd46": "Cortex-A510",
        "0xd47": "Cortex-A710",
        "0xd48": "Cortex-X2",
        "0xd49": "Neoverse N2",
        "0xd4d": "Cortex-A715",
        "0xd4e": "Cortex-X3",
        "0xd4f": "Neoverse V2",
        "0xd80": "Cortex-A520",
        "0xd81": "Cortex-A720",
        "0xd82": "Cortex-X4",
        "0xd84": "Neoverse V3",
        "0xd85": "Cortex-X925",
        "0xd87": "Cortex-A725",
        "0xd8e": "Neoverse N3",
    },
    "0x51": {"0x001": "Oryon"},
    "0x61": {
        "0x022": "Apple M1",
        "0x023": "Apple M1",
        "0x024": "Apple M1 Pro",
        "0x025": "Apple M1 Pro",
        "0x028": "Apple M1 Max",
        "0x029": "Apple M1 Max",
        "0x032": "Apple M2",
        "0x033": "Apple M2",
        "0x034": "Apple M2 Pro",
        "0x035": "Apple M2 Pro",
        "0x038": "Apple M2 Max",
        "0x039": "Apple M2 Max",
    },
    "0xc0": {"0xac3": "Ampere-1", "0xac4": "Ampere-1A"},
}


@cache
def cpu_text(cpuinfo: str | None = None) -> str:
    """Name and numbers of the processor: "AMD EPYC, family 26, model 2, stepping 1"."""
    cpuinfo = system.cpuinfo() if cpuinfo is None else cpuinfo
    numbers = [(name.split()[-1], _line(name, cpuinfo)) for name in _NUMBERS]
    found = [cpu_name(cpuinfo) or platform.machine()]
    return ", ".join(found + [f"{name} {value}" for name, value in numbers if value])


def cpu_name(cpuinfo: str) -> str | None:
    """The processor's name, from /proc/cpuinfo; None where it says none that is known."""
    part = _ARM_PARTS.get(_line("CPU implementer", cpuinfo), {}).get(_line("CPU part", cpuinfo))
    return _line("model name", cpuinfo) or part


@cache
def caches_text() -> str:
    """Sizes of the caches of a core: "L1d 48K, L2 1024K, L3 32768K"; empty where the system does not say."""
    return ", ".join(f"{name} {size}" for name, size in system.caches() if name)


@cache
def cache_bytes() -> int:
    """Of the largest cache; 0 where the system does not say."""
    found = [re.fullmatch(r"(\d+)K", size) for _, size in system.caches()]
    return max((int(size[1]) << 10 for size in found if size), default=0)


def _line(name: str, cpuinfo: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else ""
