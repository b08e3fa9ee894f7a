"""What this machine is, read from the operating system: facts that go beside every number.

Called by the doctor and by reports. Does not measure, and does not import the native core.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from albireo.api.machine.memory import available_bytes, machine_bytes
from albireo.backends.cpu.fingerprint import cpu_name
from albireo.control_group import control_group, read_text
from albireo.system import cpuinfo, usable_processors

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
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
        cpu=cpu_name(cpuinfo()) or platform.processor() or platform.machine(),
        num_cpus=usable_processors(),
        cpu_quota=control_group().cpus,
        huge_pages=parse_huge_pages(read_text(_HUGE_PAGES)),
        memory_bytes=machine_bytes(),
        available_bytes=available_bytes(),
        gpus=_gpus(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def parse_huge_pages(enabled: str) -> str | None:
    """The word in brackets: "always [madvise] never" is madvise."""
    match = re.search(r"\[(\w+)\]", enabled)
    return match[1] if match else None


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
