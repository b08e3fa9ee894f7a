"""What this machine is, read from the operating system: facts that go beside every number.

Called by the doctor and by reports. Does not measure, and does not import the native core.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from albireo.api.memory import machine_bytes
from albireo.backends.cpu.fingerprint import cpu_name

_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_GPU_DRIVER = Path("/proc/driver/nvidia/version")
_GPU_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One machine, as this process may use it.

    Fields:
        num_cpus: logical processors this process may run on.
        cpu_quota: processors' worth of time the control group allows; None: no limit.
        huge_pages: always, madvise or never: when the system gives huge pages; None where it does not say.
        memory_bytes: of the machine, or of the control group; available_bytes: not in use now.
        gpus: names; known without a driver library of ours.
    """

    cpu: str
    num_cpus: int
    cpu_quota: float | None
    huge_pages: str | None
    memory_bytes: int
    available_bytes: int
    gpus: tuple[str, ...]
    system: str
    python: str


def machine_facts() -> MachineFacts:
    """Ask the operating system. Cost: milliseconds; with an NVIDIA driver as long as nvidia-smi takes."""
    return MachineFacts(
        cpu=cpu_name(_read(_CPUINFO)) or platform.processor() or platform.machine(),
        num_cpus=len(os.sched_getaffinity(0)),
        cpu_quota=parse_cpu_quota(_read(_CPU_QUOTA)),
        huge_pages=parse_huge_pages(_read(_HUGE_PAGES)),
        memory_bytes=machine_bytes(),
        available_bytes=parse_available_bytes(_read(_MEMINFO)),
        gpus=_gpus(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def parse_cpu_quota(cpu_max: str) -> float | None:
    """Processors' worth of time, from cpu.max of a control group: "150000 100000" is 1.5."""
    match = re.fullmatch(r"(\d+) (\d+)\s*", cpu_max)
    return int(match[1]) / int(match[2]) if match else None


def parse_huge_pages(enabled: str) -> str | None:
    """The word in brackets: "always [madvise] never" is madvise."""
    match = re.search(r"\[(\w+)\]", enabled)
    return match[1] if match else None


def parse_available_bytes(meminfo: str) -> int:
    """MemAvailable of /proc/meminfo; 0 where it is missing."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) << 10 if match else 0


def _gpus() -> tuple[str, ...]:
    command = shutil.which("nvidia-smi")
    if command is not None:
        try:
            query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
            found = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True)
            return tuple(line.strip() for line in found.stdout.splitlines() if line.strip())
        except (OSError, subprocess.SubprocessError):
            # A driver that does not answer: what the kernel says is all there is.
            pass
    return ("NVIDIA, of unknown kind",) if _GPU_DRIVER.exists() else ()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
