"""What is carried from layer to layer: small errors pass, one that no single call shows is named by its layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from albireo.compiler.pipeline import passes_of, run_passes
from albireo.models import open_checkpoint
from albireo.verify.bounds import evaluate
from albireo.verify.layers import Carried, LayerError
from albireo.verify.numerics import layers_stage
from albireo.verify.steps import NUM_BLOCKS, walk_steps
from albireo.verify.walk import Seen, walk
from verify.models import graph_of, loaded


def errors(pair: tuple[Path, Path], change: Callable[[Seen], Seen] = lambda seen: seen) -> list[LayerError]:
    checkpoint, engine = pair
    graph = graph_of(checkpoint, "bfloat16")
    model = loaded(engine).model
    fused, _ = run_passes(graph, passes_of(model.program))
    carried = Carried(fused, model.program.kv, NUM_BLOCKS)
    with open_checkpoint(checkpoint, graph) as weights:
        for seen in walk(model, fused, weights, walk_steps(range(90), 60, 16)):
            carried.follow(change(seen), evaluate(seen.node, seen.roles, seen.step))
    return carried.errors()


def test_the_same_walk_gives_the_same_numbers(built: tuple[Path, Path]) -> None:
    first, second = errors(built), errors(built)
    assert first == second
    assert all(layer.is_right for layer in first)
    assert first[0] == LayerError("embed", 0.0, 0.0)
    assert all(0 < layer.error < layer.tolerance for layer in first[1:])


def test_a_stream_that_strays_is_named(built: tuple[Path, Path]) -> None:
    """As if the native stream had lost something behind layer 0."""

    def stray(seen: Seen) -> Seen:
        moved = [r * 1.05 if isinstance(r, np.ndarray) and r.dtype == np.float32 else r for r in seen.results]
        return replace(seen, results=moved) if seen.call.origin == "layers.1.mlp.down" else seen

    stage = layers_stage(errors(built, stray))
    assert stage.verdict == "failed"
    assert stage.finding.startswith("layers.1: off by ")


def test_what_is_no_number_is_not_within_tolerance(built: tuple[Path, Path]) -> None:
    def lost(seen: Seen) -> Seen:
        return replace(seen, results=[r * np.nan for r in seen.results]) if seen.call.family == "embed" else seen

    assert not errors(built, lost)[0].is_right
