"""A table of positions that need not be in a file (XGLM): sines, then cosines, of each position.

Called by weights.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.json_file import Fields
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors

_TABLE, _EMBEDDINGS = "model.embed_positions.weights", "model.embed_tokens.weight"
#: The first position has the number of padding, and one more.
_FIRST = 2
_SLOWEST = 10000.0


def with_sine_positions(plan: Plan, stored: StoredTensors, config: Mapping[str, Any]) -> Plan:
    """The plan with the table; the plan itself where files have what there is. Args: config: of config.json."""
    if config.get("model_type") != "xglm" or _EMBEDDINGS not in stored.names:
        return plan
    fields = Fields(config, "config.json")
    count, shape = fields.integer("max_position_embeddings", 1, MAX_POSITIONS, 2048), stored.shape(_EMBEDDINGS)
    if len(shape) == 2 and shape[1] % 2 == 0 and shape[1] > 2:
        # a file of before transformers left it out has it, too, with the rows of padding
        stored_too = (_TABLE,) if _TABLE in stored else ()
        plan.add(Matrix(_TABLE, (count, shape[1]), None, stored_too, partial(_waves, count, shape[1])))
    return plan


def _waves(count: int, width: int) -> NDArray[np.generic]:
    half = width // 2
    speeds = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(_SLOWEST) / (half - 1)))
    angles = np.arange(_FIRST, count + _FIRST, dtype=np.float32)[:, None] * speeds
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
