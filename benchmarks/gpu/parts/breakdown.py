"""Where the time of a step goes, kernel by kernel: decoding of 1, 64 and 256 sequences, a prompt of 8,192 tokens.

Of the shape of Llama-3.1-8B, by CUPTI: how long each kernel computes, and how long none does between two of them, which
graphs do not tell. Watching costs a little; speeds are decode.py's and prefill.py's.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from report import Row
from setup import Setup, attempt

if TYPE_CHECKING:
    from albireo.backends.cuda.model import CudaModel
    from albireo.backends.step_inputs import StepInputs

#: Of each step the kernels that take the most of it.
SHOWN = 14


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.model  # noqa: F401 - where it is missing the part is skipped

    for weights in setup.pick(("bf16", "fp8"), ("bf16",)):
        yield from attempt(weights, lambda weights=weights: _steps(setup, weights))


def _steps(setup: Setup, weights: str) -> Iterator[Row]:
    from model import blocks_for, make_step, random_model, vocabulary

    longest, most, context = setup.pick((8192, 256, 512), (16, 2, 8))
    maxima = {"T": longest, "R": most, "G": most}
    model = random_model(setup, weights, maxima, longest, blocks_for(context, most))
    vocab = vocabulary(model)
    steps = [(f"{size} x 1, context {context}", make_step(1, context - 1, size, vocab)) for size in (1, 64, most)]
    steps.append((f"prompt of {longest}", make_step(longest, 0, 1, vocab)))
    for name, step in steps[: setup.pick(4, 1)]:
        for _ in range(2):
            model.run(step)
        yield from _rows(f"{weights} {name}", _events(setup, model, step))
    del model
    setup.release()


def _events(setup: Setup, model: CudaModel, step: StepInputs) -> list[Mapping[str, Any]]:
    """As a trace has them."""
    if setup.is_dry:
        model.run(step)
        return [{"cat": "kernel", "name": "none", "ts": float(at), "dur": 2.0} for at in (0, 3)]
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        model.run(step)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        watched.export_chrome_trace(str(path))
        found: list[Mapping[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return found


def _rows(label: str, events: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    kernels = sorted((event for event in events if event.get("cat") == "kernel"), key=lambda event: event["ts"])
    if not kernels:
        yield Row(label, note="CUPTI tells of no kernels here")
        return
    times: dict[str, list[float]] = {}
    end = between = 0.0
    for kernel in kernels:
        grid = kernel.get("args", {}).get("grid", "")
        times.setdefault(f"{kernel['name']} {grid}".strip(), []).append(kernel["dur"])
        between += max(0.0, kernel["ts"] - end) if end else 0.0
        end = max(end, kernel["ts"] + kernel["dur"])
    span, busy = end - kernels[0]["ts"], sum(map(sum, times.values()))
    note = f"{len(kernels)} kernels, {busy / 1e3:.3f} ms in all, {between / 1e3:.3f} ms without any"
    yield Row(label, span / 1e3, "ms", note, data={"kernels": times})
    for name in sorted(times, key=lambda name: -sum(times[name]))[:SHOWN]:
        each = times[name]
        note = f"{len(each)} of {statistics.median(each):.1f} us, {sum(each) / span:.3f} of the step"
        yield Row(f"{label}: {name}", sum(each) / 1e3, "ms", note)
