"""The question: does the CUDA backend compute the right numbers on this GPU, and how fast?

    python benchmarks/gpu/first_hour.py --call numbers --out numbers.json
    python benchmarks/gpu/first_hour.py --call engine --out engine.json
    python benchmarks/gpu/first_hour.py --call constants --out constants.json
    python benchmarks/gpu/first_hour.py [--parts decode,attention] [--seconds 590] [--out FILE]
    python benchmarks/gpu/first_hour.py --dry-run

Three calls of under ten minutes each on one GPU, in the order of what is to be known first, and one for machines with
several. With nothing downloaded: weights are random numbers made on the device. Needs torch, Triton and numpy; albireo
need be neither installed nor built (busy's server needs the extra 'serve', uvicorn to msgspec, and is left out where
something is missing).

- numbers: is everything right? Every kernel against torch in float64, requests against numpy and against themselves,
  swapping. Then how fast: ceilings, decode, prefill, attention, drawing, recording.
- engine: kernels of a step by CUPTI; throughput through the scheduler beside TensorRT-LLM's table, how busy the GPU is
  while a server streams, and transformers on the same GPU.
- constants: what stands in the code as a guess; each line `verdict` says where, the best value, the one now, the gain.
- ranks: the bundled model on two GPUs and four. Needs albireo with its native core.

Each part (parts/) runs in a process of its own with a limit, so that a fault of one, or of the GPU, is not the end of
the others; parts that only check numbers run side by side. Prints a table; its last lines are targets, verdicts, and
all that is wrong, with the worst element. All of it is in the JSON file, which is written again after each part.
--dry-run runs every part with tiny shapes on the CPU, in Triton's interpreter, and says which parts that hold kernels
against torch launch each of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

#: Importing torch is part of the call, and takes long on a machine that never did.
BEGUN = time.monotonic()
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "src")]

from launched import all_kernels, noted  # noqa: E402 - the path comes first
from parts import CALLS, NUMBERS, PARTS  # noqa: E402
from report import PartResult, Row, table, write  # noqa: E402

OUT = HERE.parent / "results" / "gpu_first_hour.json"
#: Of no GPU: it must not take the place of what one said.
DRY_OUT = ROOT / "build" / "gpu_first_hour.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help=f"file of results; by default {OUT.name} beside others, or in build/")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--call", choices=CALLS, help="the parts of one of the calls")
    asked.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=590.0, help="for all of it")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU, in this process")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # one part, in a process of its own
    args = parser.parse_args()
    names = args.parts.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"no such parts: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if args.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    if args.rows:
        return _child(names[0], args.rows, args.seconds)
    if not args.dry_run and not _has_gpu():
        parser.error("torch finds no GPU; --dry-run runs all parts on the CPU")
    out = args.out or (DRY_OUT if args.dry_run else OUT)
    out.parent.mkdir(exist_ok=True)
    return _parent(CALLS[args.call] if args.call else [(name,) for name in names], out, args.seconds, args.dry_run)


def _parent(groups: Sequence[Sequence[str]], out: Path, seconds: float, is_dry: bool) -> int:
    start = BEGUN
    results: list[PartResult] = []
    facts: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "is_dry": is_dry}
    for group, planned in zip(groups, planned_ends(groups, seconds), strict=True):
        # what parts before it left of their time is there for the later ones
        limit = start + planned - time.monotonic()
        if limit < 5 and not is_dry:
            results += [PartResult(name, "late", 0.0, "no time was left") for name in group]
        else:
            print(f"{', '.join(group)} ...", flush=True)
            results += [_here(name, facts) for name in group] if is_dry else _beside(group, limit)
        facts["seconds"] = round(time.monotonic() - start, 1)
        write(out, facts, results)
    if is_dry:
        print("\n".join(_checked(facts.get("kernels", {}))))
    print(table(results))
    return 0 if all(result.status in ("ok", "skipped") for result in results) else 1


def planned_ends(groups: Sequence[Sequence[str]], seconds: float) -> list[float]:
    """When each group is to be over, in seconds from the beginning: its parts' at most. Where all of them are more than
    there are, each has its share, so that none is left out; of less than half of it those that come first have all."""
    longest = [max(PARTS[name] for name in group) for group in groups]
    share = min(1.0, seconds / sum(longest))
    share = share if share >= 0.5 else 1.0
    return [min(seconds, share * sum(longest[: i + 1])) for i in range(len(longest))]


def _checked(launched: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line a kernel: the parts of NUMBERS that launched it."""
    by = {name: kernels for name, kernels in launched.items() if name in NUMBERS}
    for kernel in sorted(all_kernels()):
        yield f"kernel {kernel}: {', '.join(name for name in by if kernel in by[name]) or 'NONE of these parts'}"


def _beside(group: Sequence[str], limit: float) -> list[PartResult]:
    with ThreadPoolExecutor(len(group)) as threads:
        return list(threads.map(partial(_apart, limit=limit), group))


def _here(name: str, facts: dict[str, Any]) -> PartResult:
    """A part in this process; which kernels it launched is noted among facts."""
    start = time.monotonic()
    rows: list[Row] = []
    status, reason = "ok", ""
    try:
        with noted() as launched:
            for row in _rows(name, float("inf"), is_dry=True):
                rows.append(row)
        facts.setdefault("kernels", {})[name] = sorted(launched)
    except ImportError as error:
        status, reason = "skipped", str(error)
    except Exception as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"
    return _result(name, status, reason, rows, time.monotonic() - start)


def _apart(name: str, limit: float) -> PartResult:
    """A part in a process of its own; what it found before it failed, or ran out of time, is kept."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        found = Path(directory) / "rows"
        found.touch()
        command = [sys.executable, __file__, "--parts", name, "--rows", str(found), "--seconds", str(limit)]
        status, reason = "ok", ""
        done = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0)
        try:
            # a part looks at the clock itself; beyond that it hangs
            _, errors = done.communicate(timeout=limit + 5)
            if done.returncode:
                last = (errors.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
                status, reason = ("skipped" if done.returncode == SKIPPED else "failed"), last
        except subprocess.TimeoutExpired:
            # and what it started, which may hold the memory of the GPU
            os.killpg(done.pid, signal.SIGKILL)
            done.communicate()
            status, reason = "late", f"stopped after {limit:.0f} s"
        # of a part that was ended the last line may be cut short
        lines = found.read_text().splitlines(keepends=True)
        rows = [Row(**json.loads(line)) for line in lines if line.endswith("\n")]
    return _result(name, status, reason, rows, time.monotonic() - start)


def _result(name: str, status: str, reason: str, rows: list[Row], seconds: float) -> PartResult:
    if status == "ok" and any(row.is_good is False for row in rows):
        status = "wrong"
    return PartResult(name, status, round(seconds, 1), reason, rows)


#: Exit status of a part for which something is missing.
SKIPPED = 77


def _child(name: str, found: Path, limit: float) -> int:
    with found.open("a") as file:
        try:
            for row in _rows(name, limit, is_dry=False):
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
        except ImportError as error:
            print(error, file=sys.stderr)
            return SKIPPED
    return 0


def _rows(name: str, limit: float, is_dry: bool) -> Any:
    import torch
    from setup import Setup

    device = torch.device("cpu" if is_dry else "cuda")
    return importlib.import_module(f"parts.{name}").run(Setup(device, is_dry, time.monotonic() + limit))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
