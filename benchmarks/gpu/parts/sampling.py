"""What drawing tokens costs, for a vocabulary of 128 thousand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from inputs import staged_tasks
from report import Row
from setup import Setup, attempt

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.8},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "top-p 0.9": {"temperature": 0.8, "top_p": 0.9},
    "top-k, top-p, min-p": {"temperature": 0.8, "top_k": 100, "top_p": 0.95, "min_p": 0.01},
    "penalties": {"temperature": 0.8, "repetition_penalty": 1.1, "presence_penalty": 0.5},
}


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.kernels.sample  # noqa: F401 - where it is missing the part is skipped

    vocab = setup.pick(128_256, 300)
    for rows in setup.pick((1, 64, 256), (1,)):
        logits = setup.random(rows, vocab) * 4
        yield from attempt(f"best of {rows}", lambda logits=logits: _top(setup, logits))
        for name, params in KINDS.items():
            args = (setup, logits, name, params)
            yield from attempt(f"{name} of {rows}", lambda args=args: _sample(*args))


def _top(setup: Setup, logits: torch.Tensor) -> Iterator[Row]:
    from albireo.backends.cuda.kernels.top import top, top_workspace
    from albireo.graph.ops import TOP_LOGITS

    rows, vocab = logits.shape
    ids = torch.empty((rows, TOP_LOGITS), dtype=torch.int32, device=setup.device)
    values = torch.empty((rows, TOP_LOGITS), device=setup.device)
    space = torch.empty(top_workspace(rows, vocab), dtype=torch.int64, device=setup.device)
    for count in setup.pick((1, 41, TOP_LOGITS), (41,)):
        counts = torch.full((rows,), count, dtype=torch.int32, device=setup.device)
        args = (logits, counts, ids, values, space)
        seconds = setup.seconds(lambda args=args: top(*args))
        yield Row(f"the best {count} of {rows} rows", seconds * 1e6, "us")


def _sample(setup: Setup, logits: torch.Tensor, name: str, params: dict[str, Any]) -> Iterator[Row]:
    from albireo.backends.cuda.kernels.sample import sample
    from albireo.backends.cuda.sampling import SampleWorkspace
    from albireo.params import SamplingParams
    from albireo.step import SampleTask

    rows, vocab = logits.shape
    used = list(range(setup.pick(1000, 10)))
    tasks = [SampleTask(i, SamplingParams(**params), i, used, used[:100]) for i in range(rows)]
    space = SampleWorkspace.allocate(rows, vocab, setup.device)
    tensors, arrays = staged_tasks(setup, tasks, vocab)
    out = torch.empty(rows, dtype=torch.int32, device=setup.device)
    seconds = setup.seconds(lambda: sample(logits, tensors, space, out, arrays.changes, arrays.truncates))
    is_good = bool(((out >= 0) & (out < vocab)).all())
    yield Row(f"{name}, {rows} rows", seconds * 1e6, "us", is_good=is_good)
