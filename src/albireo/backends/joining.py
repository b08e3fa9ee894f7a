"""What ranks computed of the head, each for its part of the vocabulary, put together.

Called by whoever runs several ranks: cpu/ranks.py and reference/ranks.py. Ranks are in the order of their parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


def join_top(ids: Sequence[Ints], values: Sequence[Floats], widths: Sequence[int], counts: Ints) -> tuple[Ints, Floats]:
    """The best logits of all parts, in the order and with the fillers of graph.ops' top_logits.

    Args:
        ids, values: [G, TOP_LOGITS] of each rank; ids count from the start of its part.
        widths: entries of the vocabulary in each part.
        counts: [G] how many of the best each row wants.
    """
    num_rows, num_kept = ids[0].shape
    wanted = int(counts.max(initial=0))
    offsets = np.cumsum([0, *widths[:-1]])
    parts: list[NDArray[Any]] = [part[:, :wanted] for part in ids]
    all_ids = np.concatenate([np.where(p < 0, p, p + o) for p, o in zip(parts, offsets, strict=True)], axis=1)
    all_values = np.concatenate([part[:, :wanted] for part in values], axis=1)
    # Equal values stay in the order of the parts, which is that of the ids. NaN comes first, fillers last.
    order = np.lexsort((-all_values, ~np.isnan(all_values), all_ids < 0), axis=1)[:, :wanted]
    is_wanted = np.arange(order.shape[1]) < counts[:, None]
    found_ids = np.full((num_rows, num_kept), -1, np.int32)
    found_values = np.full((num_rows, num_kept), -np.inf, np.float32)
    best = found_ids[:, : order.shape[1]], found_values[:, : order.shape[1]]
    best[0][:] = np.where(is_wanted, np.take_along_axis(all_ids, order, axis=1), -1)
    best[1][:] = np.where(is_wanted, np.take_along_axis(all_values, order, axis=1), -np.inf)
    return found_ids, found_values
