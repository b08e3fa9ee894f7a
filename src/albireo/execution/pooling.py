"""Hidden states -> an embedding, bit for bit the same however the prompt was cut into steps.

Called by runner.py for each work of a step that has a PoolingTask. Does not know programs or requests.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.params import PoolingParams
from albireo.step import Floats, PoolingTask


class Ending(Protocol):
    """What is made of a pooled hidden state."""

    def finished(self, values: NDArray[np.float64], params: PoolingParams) -> NDArray[np.float64]:
        """values: [E] -> the embedding, or a classifier's scores."""
        ...


class Scaled:
    """The embedding of a model whose files say nothing of it."""

    def finished(self, values: NDArray[np.float64], params: PoolingParams) -> NDArray[np.float64]:
        """The first dimensions, and unless use_activation says no of length 1."""
        return scaled(values[: params.dimensions], params.use_activation is not False)


def pool(task: PoolingTask, hidden: NDArray[np.float32], ending: Ending) -> Floats:
    """What a step makes of a prompt's hidden states.

    Args: hidden: [task.num_rows, E]. ending: what is done at the prompt's end, or to each token by itself.
    Returns: [E] their sum so far, or the largest of each value; at the prompt's end the embedding, of values that are
        float32. Where each token keeps its own: what is made of each row, one behind the other.
    Raises: InvariantError when hidden states are not numbers.
    Cost: O(num_rows * E), about 1 µs a row and 1,000 values.
    """
    if task.params.pooling_type == "all":
        if not np.isfinite(hidden).all():
            raise InvariantError("hidden states are not numbers")
        rows = (ending.finished(row, task.params).astype(np.float32) for row in hidden.astype(np.float64))
        return array("f", b"".join(row.tobytes() for row in rows))
    if task.params.pooling_type == "max":
        values = hidden.max(axis=0).astype(np.float64)
        if task.sums:
            values = np.maximum(values, task.sums)
    elif task.params.pooling_type != "mean":
        values = hidden[-1].astype(np.float64)
    else:
        values = np.array(task.sums) if task.sums else np.zeros(hidden.shape[1])
        # One chain of additions over the prompt, whatever the steps: numpy's own sum over rows promises no order.
        for row in hidden:
            values += row
    if not np.isfinite(values).all():
        raise InvariantError("hidden states are not numbers")
    if not task.is_last:
        return _list(values)
    if task.params.pooling_type == "mean":
        values /= task.num_earlier + task.num_rows
    return _list(ending.finished(values, task.params).astype(np.float32))


def _list(values: NDArray[np.floating[Any]]) -> list[float]:
    found: list[float] = values.tolist()
    return found


def scaled(values: NDArray[np.float64], is_wanted: bool) -> NDArray[np.float64]:
    """Of length 1, where that is wanted and can be."""
    if not is_wanted:
        return values
    length = math.sqrt(math.fsum((values * values).tolist()))
    return values / length if length > 0 else values
