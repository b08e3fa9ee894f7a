"""What every engine's worker does: load, then answer one JSON line a run on stdin with one on stdout.

A worker runs in its own engine's environment, so this file uses the standard library only. A worker hands serve() a
function (requests) -> (wall seconds, seconds to the first token or None).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from fixed_requests import WORKLOADS, Request

# Engines and their children print where they like. Answers go to the stdout this process began with; from here on
# what is printed goes to stderr. Import this module before the engine.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def process_age_s() -> float:
    """Seconds since this process started, by the kernel's count (10 ms grain)."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def peak_rss_mib() -> int:
    """Peak resident memory of this process and its descendants, summed."""
    total, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        with open(f"/proc/{pid}/status") as file:
            total += next((int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM")), 0)
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                todo += [int(child) for child in file.read().split()]
    return total


def serve(run: Callable[[list[Request]], tuple[float, float | None]]) -> None:
    """Answer until stdin ends."""
    run([(WORKLOADS["W1"](99)[0][0], 1)])
    print(json.dumps({"first_token_s": process_age_s(), "rss_mib": peak_rss_mib()}), file=ANSWERS, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        requests = WORKLOADS[job["workload"]](job["run"])
        wall_s, ttft_s = run(requests)
        print(json.dumps({"wall_s": wall_s, "ttft_s": ttft_s, "rss_mib": peak_rss_mib()}), file=ANSWERS, flush=True)
