"""What a picture takes: tiles, tokens of the prompt, and the time that the tower and its projector need for it.

Called by plan.py before a weight is read. Predicts as cost_model.py does, of programs that read patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from albireo.api.vision import Vision
from albireo.backends.layer_runs import layer_runs
from albireo.bench.cost_model import CostModel
from albireo.bench.predict import Estimate
from albireo.bench.roofline import Limits, StepShape
from albireo.graph.program import Program
from albireo.images.decode import as_image

#: Width and height of the picture that figures are of.
PICTURE = (1024, 768)


def image_figures(vision: Vision | str, limits: Sequence[Limits]) -> dict[str, Any]:
    """Of one picture; problem: why none are read, else empty. elapsed_s: None where no limits are known."""
    if isinstance(vision, str):
        return {"problem": vision}
    width, height = PICTURE
    prepared = vision.processor.prepare(as_image(np.zeros((height, width, 3), np.uint8)))
    sizes = [tile.shape[:2] for tile in prepared.tiles]
    rows = [vision.tower.rows(*size) for size in sizes]
    patches = [vision.tower.patches(*size) for size in sizes]
    costs, projector = _layer_costs(vision.programs[0]), CostModel(vision.programs[1], 0)
    sequences = [vision.tower.sequences(*size) or ((count,),) for size, count in zip(sizes, patches, strict=True)]
    steps = [(costs[layer], lengths) for tile in sequences for layer, lengths in enumerate(tile)]
    steps += [(projector, (count,)) for count in rows]
    times = sorted(sum(_step_s(cost, lengths, each) for cost, lengths in steps) for each in limits)
    return {
        "problem": "",
        "picture": list(PICTURE),
        "tiles": len(sizes),
        "patches": sum(patches),
        "tokens": sum(rows),
        "elapsed_s": asdict(Estimate.of(times[len(times) // 2], times[0], times[-1])) if times else None,
    }


def _layer_costs(program: Program) -> list[CostModel]:
    """Of the calls of each layer of the KV cache: whose sequences those have."""
    runs = layer_runs(program.calls)
    calls = [tuple(program.calls[i] for of, run in runs for i in run if of == layer) for layer in sorted(dict(runs))]
    return [CostModel(replace(program, calls=some), 0) for some in calls]


def _step_s(costs: CostModel, lengths: Sequence[int], limits: Limits) -> float:
    rows = sum(lengths)
    return costs.step_s(StepShape(rows, 0, 0, tuple((each, each) for each in lengths)), limits)
