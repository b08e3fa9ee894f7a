"""What a picture takes: tiles, tokens of the prompt, and the time that the tower and its projector need for it.

Called by plan.py before a weight is read. Predicts as cost_model.py does, of programs that read patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from albireo.api.vision import Vision
from albireo.bench.cost_model import CostModel
from albireo.bench.predict import Estimate
from albireo.bench.roofline import Limits, StepShape
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
    costs = [CostModel(program, 0) for program in vision.programs]
    steps = [(cost, count) for cost, counts in zip(costs, (patches, rows), strict=True) for count in counts]
    times = sorted(sum(_step_s(cost, count, each) for cost, count in steps) for each in limits)
    return {
        "problem": "",
        "picture": list(PICTURE),
        "tiles": len(sizes),
        "patches": sum(patches),
        "tokens": sum(rows),
        "elapsed_s": asdict(Estimate.of(times[len(times) // 2], times[0], times[-1])) if times else None,
    }


def _step_s(costs: CostModel, rows: int, limits: Limits) -> float:
    return costs.step_s(StepShape(rows, 0, 0, ((rows, rows),)), limits)
