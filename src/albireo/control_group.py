"""What the control group that this process is in allows it: memory, and time of processors.

A container, a pod or a service has less than the machine, and the machine's own numbers do not say so: a program that
takes those is killed for its memory, or stands still for most of each period because its threads spent the time of all.
Of a group and those it lies in the least counts. Versions 1 and 2 of Linux' control groups (cgroups(7)), each as the
process sees it: from inside a container its own group mostly is the root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """Limits; None: there is none.

    Fields:
        memory_bytes: that the processes of the group may have together; free_bytes: of those, what none of them uses or
            what the kernel would take back for them (files that it keeps), in the group that has the least of it.
        cpus: processors' worth of time: 1.5 is 150 ms in each 100.
    """

    memory_bytes: int | None = None
    free_bytes: int | None = None
    cpus: float | None = None


def control_group(root: Path = ROOT, own: Path = OWN) -> ControlGroup:
    """Read the limits, which may change at any time. Cost: some small files. What cannot be read is no limit."""
    memory, free, cpus = [], [], []
    for folder in _folders(root, own, "memory"):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        if limit is None:
            continue
        memory.append(limit)
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if used is not None:
            free.append(max(0, limit - max(0, used - _files(folder))))
    for folder in _folders(root, own, "cpu"):
        quota = _quota(folder)
        if quota is not None:
            cpus.append(quota)
    return ControlGroup(min(memory, default=None), min(free, default=None), min(cpus, default=None))


def threads_allowed(cpus: float | None, num_cores: int) -> int:
    """So many threads can compute all the time: one a core, but none that the group has no whole processor for."""
    return num_cores if cpus is None else max(1, min(num_cores, int(cpus)))


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Of each mounted version, the group this process is in and those around it."""
    for line in read_text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # version 1 mounts a folder for each set of controllers, with a link for each; a mix of both has 2 in `unified`
        tops = [root / controllers, root / controller] if controllers else [root, root / "unified"]
        top = next((each for each in tops if each.is_dir()), None)
        if top is None:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth])


def _number(folder: Path, *names: str) -> int | None:
    for name in names:
        text = read_text(folder / name).strip()
        if text.isdigit():
            return int(text)
    return None


def _files(folder: Path) -> int:
    """Bytes of files that the kernel keeps in memory for the group and gives up when it needs them."""
    stat = dict(line.split(maxsplit=1) for line in read_text(folder / "memory.stat").splitlines() if " " in line)
    return sum(int(stat.get("total_" + key) or stat.get(key) or 0) for key in ("active_file", "inactive_file"))


def _quota(folder: Path) -> float | None:
    quota, _, period = read_text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def read_text(path: Path) -> str:
    """A file of the system, empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
