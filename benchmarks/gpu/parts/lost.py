"""A GPU that answers nothing any more in one process: the next step fails as DeviceLost, and the process ends.

What `albireo serve` then does is the same as where an engine process dies, which needs no GPU.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from report import Row
from setup import Setup, attempt

SCRIPT = Path(__file__).resolve().parents[1] / "lose_gpu.py"
#: Seconds until it has to have ended, its start and a kernel or two among them.
LIMIT = 120.0


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.shortage  # noqa: F401 - where it is missing the part is skipped

    yield from attempt("lost", lambda: _lost(setup))


def _lost(setup: Setup) -> Iterator[Row]:
    if setup.is_dry:
        yield Row("a GPU that is lost", note="left out: a CPU cannot be")
        return
    limit, start = min(LIMIT, setup.seconds_left), time.monotonic()
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=limit, check=False)
    said = done.stdout.strip()
    note = f"{said or 'nothing'}; the process ended by itself, with status {done.returncode}"
    yield Row("a GPU that is lost: seconds in all", time.monotonic() - start, "s", note, is_good=said == "DeviceLost")
