"""StepOutputs: what a step gives, the same for every backend.

Made by a backend's model, read by execution/runner.py. Views of memory that the next step overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """Logits of the rows that were asked for; views that the next step overwrites.

    Fields:
        logits: [R, V] float32, rows as in logit_rows.
        top_ids, top_values: [G, TOP_LOGITS] best logits, rows as in top_rows; -1 and -inf behind the last one wanted.
    """

    logits: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_values: NDArray[np.float32]
