"""What a sound takes in a prompt of a model that hears.

Called by plan.py before a weight is read, and by cli/facts.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from albireo.api.media.perception import Ear, Perception, Vision

#: Of the sound that figures are of, where the model hears as much.
SECONDS = 30


def sound_figures(perception: Perception | str) -> dict[str, Any] | None:
    """Of a sound of some seconds, and tokens that it is; None: the model hears none."""
    ear = perception.ear if isinstance(perception, Vision) else perception
    if not isinstance(ear, Ear):
        return None
    processor = ear.processor
    seconds = min(SECONDS, processor.longest_s)
    prepared = processor.prepare(np.zeros(int(seconds * processor.rate), np.float32))
    return {
        "seconds": seconds,
        "tiles": len(prepared.tiles),
        "tokens": sum(processor.rows(*tile.shape) for tile in prepared.tiles),
    }
