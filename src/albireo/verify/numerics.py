"""Op by op and layer by layer, in one walk: a weight is widened once for both.

Called by run.py. Ends at the first call that is out of tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from albireo.backends.step_inputs import StepInputs
from albireo.compiler.pipeline import Pass, run_passes
from albireo.graph.node import Graph
from albireo.models.checkpoint.weights import Checkpoint
from albireo.verify.blas_threads import one_blas_thread
from albireo.verify.bounds import Settle, evaluate
from albireo.verify.layers import MARGIN, Carried, LayerError
from albireo.verify.ops import CallCheck, check_call
from albireo.verify.result import Stage
from albireo.verify.steps import NUM_BLOCKS
from albireo.verify.walk import CallModel, Seen, products_of, walk

OPS_PROVE = (
    "Each native call computes what the checkpoint's graph says: it is run alone, on what the calls before it left, "
    "and held against the float64 reference on the same inputs. Tolerance: computed from the operands, element by "
    "element."
)
LAYERS_PROVE = (
    "Errors do not pile up: the residual stream, carried through all layers, against the reference carrying its own. "
    f"Tolerance: {MARGIN:g} times how far the reference strays when each result moves within its own tolerance by "
    "chance."
)


@dataclass(slots=True)
class Numerics:
    """What a walk found. layers is empty when a call was out of tolerance."""

    checks: list[CallCheck] = field(default_factory=list)
    layers: list[LayerError] = field(default_factory=list)
    wrong: CallCheck | None = None


def run_numerics(
    model: CallModel,
    graph: Graph,
    checkpoint: Checkpoint,
    steps: Sequence[StepInputs],
    advance: Callable[[int], None],
    passes: Sequence[Pass],
) -> Numerics:
    """Walk through steps.

    Args: graph: the checkpoint's base graph. advance is called with 1 for each call looked at. passes: of the build.
    """
    fused, _ = run_passes(graph, passes)
    program = model.program
    found, carried = Numerics(), Carried(fused, program.kv, NUM_BLOCKS, products_of(program))
    with one_blas_thread():
        for seen in walk(model, fused, checkpoint, steps):
            wanted = evaluate(seen.node, seen.roles, seen.step, settle=_written(seen))
            check = check_call(seen, wanted)
            found.checks.append(check)
            if not check.is_right:
                found.wrong = check
                return found
            carried.follow(seen, wanted)
            advance(1)
    found.layers = carried.errors()
    return found


def _written(seen: Seen) -> Settle:
    """What a call makes of another of its results is held to the one that it wrote, which is judged by itself."""
    return lambda i, _: np.asarray(seen.results[i])


def ops_stage(found: Numerics, steps: Sequence[StepInputs]) -> Stage:
    """The verdict on single calls."""
    num_values = sum(check.num_values for check in found.checks)
    num_exact = sum(check.num_exact for check in found.checks)
    looked_at = (
        f"{len(found.checks)} calls in {len(steps)} steps of {', '.join(str(s.num_tokens) for s in steps)} tokens"
    )
    equal = f"{num_values:,} values, {num_exact / max(1, num_values):.2%} equal to the reference"
    figures: dict[str, Any] = {
        "num_values": num_values,
        "num_exact": num_exact,
        "steps": [dict(step.sizes) for step in steps],
        "families": _families(found.checks),
        "calls": [asdict(check) for check in found.checks],
    }
    if found.wrong is None:
        summary = f"{looked_at}: {equal}, the others within tolerance"
        return Stage("ops", OPS_PROVE, "passed", summary, "", figures)
    summary = f"call {len(found.checks)} of those looked at is out of tolerance; up to there {equal}"
    return Stage("ops", OPS_PROVE, "failed", summary, _describe(found.wrong), figures)


def layers_stage(layers: Sequence[LayerError]) -> Stage:
    """The verdict on what was carried from layer to layer."""
    wrong = next((layer for layer in layers if not layer.is_right), None)
    last = layers[-1]
    nearest = max((layer.error / layer.tolerance for layer in layers if layer.tolerance > 0), default=0.0)
    summary = f"{len(layers)} places, at most {nearest:.2f} of the tolerance; at the end ({last.name}) {last.error:.2e}"
    finding = "" if wrong is None else f"{wrong.name}: off by {wrong.error:.3e}, tolerance {wrong.tolerance:.3e}"
    figures = {"layers": [asdict(layer) for layer in layers]}
    return Stage("layers", LAYERS_PROVE, "passed" if wrong is None else "failed", summary, finding, figures)


def _families(checks: Sequence[CallCheck]) -> list[dict[str, Any]]:
    """Calls of one kernel together, in order of first use."""
    groups: dict[str, list[CallCheck]] = {}
    for check in checks:
        groups.setdefault(check.kernel, []).append(check)
    return [
        {
            "kernel": kernel,
            "num_calls": len(group),
            "num_values": sum(check.num_values for check in group),
            "num_exact": sum(check.num_exact for check in group),
            "num_wrong": sum(check.num_wrong for check in group),
            "used": max((check.worst.used for check in group if check.worst), default=0.0),
        }
        for kernel, group in groups.items()
    ]


def _describe(check: CallCheck) -> str:
    assert check.worst is not None, "a wrong call wrote something"
    worst = check.worst
    times = f"{worst.used:,.3g} times the tolerance" if worst.tolerance > 0 else "equality is wanted"
    return (
        f"{check.origin} ({check.family}, {check.kernel}), call {check.index} of step {check.step_idx + 1}: "
        f"%{worst.result}{list(worst.at)} is {worst.seen:.8g}, wanted {worst.wanted:.8g} ± {worst.tolerance:.2g} "
        f"({times}); "
        f"{check.num_wrong:,} of {check.num_values:,} values are out of tolerance"
    )
