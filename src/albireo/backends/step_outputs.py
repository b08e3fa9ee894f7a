"""StepOutputs: what a step gives, the same for every backend.

Made by a backend's model, read by execution/runner.py. Views of memory that the next step overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NOTHING: NDArray[np.float32] = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """Logits of the rows that were asked for; views that the next step overwrites.

    Fields:
        logits: [R, V] float32, rows as in logit_rows.
        top_ids, top_values: [G, TOP_LOGITS] best logits, rows as in top_rows; -1 and -inf behind the last one wanted.
        hidden: [R, E] float32, rows as in logit_rows, of a program that gives hidden states; that has no logits.
    """

    logits: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_values: NDArray[np.float32]
    hidden: NDArray[np.float32] = field(default_factory=lambda: NOTHING)
