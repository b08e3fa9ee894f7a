"""How long from the start of a process to its first token, and where the time goes: vLLM's `bench startup`, in parts.

Called by cli/bench/startup. Every round is a process of its own (first_token.py). Knows no options.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from albireo.artifact.reader import is_engine_directory
from albireo.bench.latency import PERCENTILES, Progress
from albireo.bench.report import Spread, row, seconds
from albireo.errors import ConfigError, EngineError, ResourceError
from albireo.own_python import command_of

#: What a start is made of, in order: the parts add up to the whole.
PARTS = ("interpreter", "import", "load", "first_token")
_MOMENTS = ("started", "imported", "loaded", "token")
_TIMEOUT_S = 600.0

#: Starts one process and gives the moments it prints, and the one it was started at; all on the monotonic clock.
Start = Callable[[Mapping[str, Any]], tuple[float, dict[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """What to measure.

    Fields:
        directory: of the model, of either kind; engine: fields of EngineConfig beside it.
        num_cold: rounds whose model files the system had to read anew; num_warm: rounds that found them in memory.
        num_warmups: warm rounds that do not count.
        input_len: tokens of the prompt.
    """

    directory: Path
    engine: Mapping[str, Any] = field(default_factory=dict)
    num_cold: int = 3
    num_warm: int = 3
    num_warmups: int = 1
    input_len: int = 32

    def __post_init__(self) -> None:
        for name in ("num_cold", "num_warm", "num_warmups", "input_len"):
            least = 1 if name == "input_len" else 0
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} is not allowed; it must be at least {least}")
        if self.num_cold + self.num_warm == 0:
            raise ConfigError("num_cold and num_warm are both 0; there is nothing to measure")

    @property
    def kind(self) -> str:
        return "engine directory" if is_engine_directory(self.directory) else "checkpoint"


def measure_startup(startup: Startup, progress: Progress, start: Start | None = None) -> dict[str, Any]:
    """Start process after process.

    Returns: vLLM's keys avg_cold_startup_time, cold_startup_times and cold_startup_percentiles, the same of warm, in
        seconds; beside them cold_parts and warm_parts: median, min and max of each of PARTS.
    Raises: EngineError with the message of a process that could not load the model.
    """
    start = start or start_process
    asked = {"engine": {**startup.engine, "model": str(startup.directory)}, "input_len": startup.input_len}

    def rounds(number: Iterable[int], before: Callable[[], None]) -> list[list[float]]:
        found = []
        for _ in number:
            before()
            found.append(parts_s(*start(asked)))
        return found

    figures: dict[str, Any] = {"model": str(startup.directory), "kind": startup.kind, "input_len": startup.input_len}
    cold = rounds(progress(range(startup.num_cold), "Cold starts"), lambda: forget(startup.directory))
    rounds(range(startup.num_warmups), lambda: None)
    warm = rounds(progress(range(startup.num_warm), "Warm starts"), lambda: None)
    for name, found in (("cold", cold), ("warm", warm)):
        if found:
            figures |= _figures(name, found)
    return figures


def parts_s(begun_s: float, moments: Mapping[str, float]) -> list[float]:
    """Seconds of each of PARTS."""
    edges = [begun_s, *(moments[name] for name in _MOMENTS)]
    return [after - before for before, after in pairwise(edges)]


def forget(directory: Path) -> None:
    """Ask the system to drop its copies of a model's files, so that the next reader reads the disk.

    Pages that another process has mapped stay; where the system knows no such request, nothing happens.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                # What is not written yet cannot be dropped.
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start_process(asked: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
    """Run first_token.py in a process. Raises: EngineError with its message; ResourceError when it died."""
    begun_s = time.monotonic()
    child = subprocess.run(
        command_of("albireo.bench.first_token"),
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    try:
        said: dict[str, Any] = json.loads(child.stdout)
    except ValueError:
        last = child.stderr.strip().rpartition("\n")[2]
        raise ResourceError(f"the process ended with code {child.returncode} before its first token: {last}") from None
    if "error" in said:
        raise EngineError(said["error"])
    return begun_s, said


def startup_lines(figures: Mapping[str, Any]) -> list[str]:
    """The figures for reading."""
    lines = [row("model", f"{figures['model']}, {figures['kind']}")]
    for name, what in (("cold", "its files read from the disk"), ("warm", "its files in memory")):
        times = figures.get(f"{name}_startup_times")
        if times:
            lines.append(row(f"{name} start", f"{Spread.of(times).text(seconds)}   {what}, {len(times)} rounds"))
            parts = figures[f"{name}_parts"]
            lines += [row(f"  {part.replace('_', ' ')}", Spread(**parts[part]).text(seconds)) for part in PARTS]
    return lines


def _figures(name: str, found: Sequence[Sequence[float]]) -> dict[str, Any]:
    times = [sum(parts) for parts in found]
    spreads = [Spread.of(values) for values in zip(*found, strict=True)]
    return {
        f"avg_{name}_startup_time": sum(times) / len(times),
        f"{name}_startup_times": times,
        f"{name}_startup_percentiles": {str(p): float(np.percentile(times, p)) for p in PERCENTILES},
        f"{name}_parts": {
            part: {"median": spread.median, "min": spread.min, "max": spread.max}
            for part, spread in zip(PARTS, spreads, strict=True)
        },
    }
