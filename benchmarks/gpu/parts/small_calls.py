"""Layers of many small launches: what the passes are worth that make one of several (catalog.SMALL_CALLS).

Recorded decoding steps of a few layers of DeepSeek V3, Qwen3-Next, Gemma 3 and 4, in their widths: with all of these
passes, with none, and with all but one, of those that change how many calls there are. Kernels are compiled by other
processes first, beside each other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import Row, verdict
from setup import Setup, attempt

CONTEXT, POSITIONS, MOST = 512, 1024, 8
NOW, APART = "as one", "apart"
SCRIPT = Path(__file__).resolve().parents[1] / "compile_absent.py"
#: Of each family, that compile.
PROCESSES = 2


def run(setup: Setup) -> Iterator[Row]:
    from families import FAMILIES

    import albireo.backends.cuda.model  # noqa: F401 - where it is missing the part is skipped

    names = setup.pick(list(FAMILIES), ["Gemma 4"])
    if not setup.is_dry:
        _compile(setup, names)
    for name in names:
        yield from attempt(name, lambda name=name: _family(setup, name))
        setup.release()


def _family(setup: Setup, name: str) -> Iterator[Row]:
    batches = setup.pick((1, MOST), (2,))
    found: dict[str, list[float]] = {}
    made = programs(setup, name)
    calls = {what: len(program.calls) for what, program in made.items()}
    for what, program in made.items():
        if setup.seconds_left > 8 or what in (NOW, APART):
            found[what] = [_seconds(setup, program, batch, batches[-1]) for batch in batches]
            setup.release()
    for i, batch in enumerate(batches):
        times = {what: seconds[i] for what, seconds in found.items()}
        told = f"{name}, {batch} at once"
        note = f"{calls[NOW]} calls; apart {calls[APART]} and {times[APART] * 1e6:.0f} us"
        yield Row(told, times[NOW] * 1e6, "us", note, data={"calls": calls, "seconds": times})
        yield verdict(f"small calls, {told}", "catalog.SMALL_CALLS", NOW, times)


def programs(setup: Setup, name: str) -> Mapping[str, Any]:
    """By what of the passes is left out."""
    from albireo.backends.cuda.catalog import SMALL_CALLS

    found = {NOW: _program(setup, name, frozenset()), APART: _program(setup, name, SMALL_CALLS)}
    for ability in setup.pick(sorted(SMALL_CALLS), []):
        program = _program(setup, name, frozenset({ability}))
        if len(program.calls) not in (len(found[NOW].calls), len(found[APART].calls)):
            found[f"without {ability}"] = program
    return found


def _program(setup: Setup, name: str, missing: frozenset[str]) -> Any:
    from families import FAMILIES
    from model import BLOCK_SIZE

    from albireo.backends.cuda.catalog import CudaCatalog
    from albireo.compiler.pipeline import compile_graph
    from albireo.models import build_graph, load_architecture
    from albireo.models.config_keys import parse_config

    shape = FAMILIES[name]
    architecture = load_architecture(shape["model_type"])
    config = {**architecture.tiny, **setup.pick(shape, {}), "torch_dtype": "bfloat16", "max_position_embeddings": 4096}
    positions = setup.pick(POSITIONS, 64)
    graph = build_graph(parse_config(config, architecture.rules), positions)
    catalog, most = CudaCatalog(setup.chip.capability), setup.pick(MOST, 2)
    catalog.abilities -= missing
    maxima = {"T": most, "R": most, "G": most}
    return compile_graph(graph, catalog, maxima=maxima, block_size=BLOCK_SIZE, max_positions=positions)


def _seconds(setup: Setup, program: Any, batch: int, most: int) -> float:
    """Of a recorded step of `batch` sequences."""
    from model import blocks_for, make_step, model_of, vocabulary

    from albireo.backends.cuda.buckets import NO_ENDING

    context, positions = setup.pick((CONTEXT, POSITIONS), (20, 64))
    model = model_of(setup, program, blocks_for(context, most), positions, num_state_slots=most)
    slots, none = np.arange(batch, dtype=np.int32), np.zeros(batch, np.int32)
    step = make_step(1, context - 1, batch, vocabulary(model))
    step = replace(step, state_slots=slots, snapshot_slots=none, snapshot_rows=none)
    model.run(step)
    sizes = {**step.sizes, "B": batch, "D": 0, "L": 0}
    return setup.seconds(model.placed.whole(sizes, NO_ENDING, feeds=False))


def _compile(setup: Setup, names: list[str]) -> None:
    """Into Triton's cache. What fails there is met again where it is launched."""
    chip = str(setup.chip.multiprocessors), str(setup.chip.capability)
    with tempfile.TemporaryDirectory() as claims:
        begun = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), name, "bfloat16", claims, *chip, str(part), str(PROCESSES)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ.copy(),
            )
            for part in range(PROCESSES)
            for name in names
        ]
        for process in begun:
            try:
                process.wait(timeout=max(1.0, setup.seconds_left - 20))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
