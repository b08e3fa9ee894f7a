"""What drawing tokens costs, for a vocabulary of 128 thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from inputs import staged_tasks
from report import Row, verdict
from setup import Setup, attempt

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.8},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "top-p 0.9": {"temperature": 0.8, "top_p": 0.9},
    # keeps more than candidates have room for: a search of the whole row
    "top-p 0.9, flat": {"temperature": 2.0, "top_p": 0.9},
    "top-k 3000, top-p": {"temperature": 0.8, "top_k": 3000, "top_p": 0.95},
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
        for name in ("top-k, top-p, min-p", "top-p 0.9"):
            args = (setup, logits, name, KINDS[name])
            yield from attempt(f"launches, {name} of {rows}", lambda args=args: _launches(*args))
        for name in ("temperature", "top-k, top-p, min-p"):
            args = (setup, logits, name, KINDS[name])
            yield from attempt(f"programs, {name} of {rows}", lambda args=args: _programs(*args))


def _top(setup: Setup, logits: torch.Tensor) -> Iterator[Row]:
    from albireo.backends.cuda.kernels.top import top, top_workspace
    from albireo.graph.op_numbers import TOP_LOGITS

    rows, vocab = logits.shape
    ids = torch.empty((rows, TOP_LOGITS), dtype=torch.int32, device=setup.device)
    values = torch.empty((rows, TOP_LOGITS), device=setup.device)
    space = torch.empty(top_workspace(rows, vocab), dtype=torch.int64, device=setup.device)
    for count in setup.pick((1, 41, TOP_LOGITS), (41,)):
        counts = torch.full((rows,), count, dtype=torch.int32, device=setup.device)
        args = (logits, counts, ids, values, space)
        seconds = setup.seconds(lambda args=args: top(*args))
        yield Row(f"the best {count} of {rows} rows", seconds * 1e6, "us")


def _sample(setup: Setup, logits: torch.Tensor, name: str, params: dict[str, Any], note: str = "") -> Iterator[Row]:
    from albireo.backends.cuda.kernels.sample import sample

    vocab = logits.shape[1]
    tensors, arrays, space, out = _staged(setup, logits, params)
    seconds = setup.seconds(lambda: sample(logits, tensors, space, out, arrays.changes, arrays.truncates))
    is_good = bool(((out >= 0) & (out < vocab)).all())
    yield Row(f"{name}, {logits.shape[0]} rows", seconds * 1e6, "us", note, is_good=is_good)


def _staged(setup: Setup, logits: torch.Tensor, params: dict[str, Any]) -> tuple[Any, Any, Any, torch.Tensor]:
    """The same parameters for every row: tensors, arrays, workspace, out."""
    from albireo.backends.cuda.kernels.sample import sample_workspace
    from albireo.params import SamplingParams
    from albireo.step import SampleTask

    rows, vocab = logits.shape
    used = list(range(setup.pick(1000, 10)))
    tasks = [SampleTask(i, SamplingParams(**params), i, used, used[:100]) for i in range(rows)]
    tensors, arrays = staged_tasks(setup, tasks, vocab)
    space = sample_workspace(rows, vocab, setup.device)
    return tensors, arrays, space, torch.empty(rows, dtype=torch.int32, device=setup.device)


def _launches(setup: Setup, logits: torch.Tensor, name: str, params: dict[str, Any]) -> Iterator[Row]:
    """Each launch's time: how much longer the launches up to it take than those before it."""
    from albireo.backends.cuda.kernels import (
        sample_bracket,
        sample_draw,
        sample_gather,
        sample_peak,
        sample_search,
        sample_settle,
        sample_whole,
    )
    from albireo.backends.cuda.sample_call import SampleCall

    tensors, _, space, out = _staged(setup, logits, params)
    call = SampleCall.of(logits, tensors, space, out)
    launches: dict[str, Callable[[], None]] = {
        "peak": lambda: sample_peak.sample_peak(call),
        "gather": lambda: sample_gather.sample_gather(call),
        "whole": lambda: sample_whole.sample_whole(call),
        "settle": lambda: sample_settle.sample_settle(call),
        "bracket": lambda: sample_bracket.sample_bracket(call),
        "search": lambda: sample_search.sample_search(call),
        "draw": lambda: sample_draw.sample_draw(call),
    }
    before = 0.0
    for count, launch in enumerate(launches, start=1):
        first = list(launches.values())[:count]
        seconds = setup.seconds(lambda first=first: [each() for each in first])
        yield Row(f"{launch} of {name}, {logits.shape[0]} rows", (seconds - before) * 1e6, "us")
        before = seconds


def _programs(setup: Setup, logits: torch.Tensor, name: str, params: dict[str, Any]) -> Iterator[Row]:
    """Other numbers of programs for launches over tiles: waiting.PROGRAMS wants to be the best."""
    from albireo.backends.cuda.kernels.parts import waiting

    usual = waiting.PROGRAMS
    found: dict[str, float] = {}
    try:
        for programs in dict.fromkeys((usual, *setup.pick((132, 264, 396, 528), (1,)))):
            waiting.PROGRAMS = programs
            for row in _sample(setup, logits, f"{name}, {programs} programs", params, f"usual: {usual}"):
                found[f"{programs} programs"] = (row.value or 0.0) / 1e6
                yield row
    finally:
        waiting.PROGRAMS = usual
    yield verdict(f"{name} of {len(logits)} rows", "waiting.PROGRAMS", f"{usual} programs", found)
