"""rope: rotates channel pairs (i, i + D/2), or (2i, 2i + 1), of each head by position * inv_freq[i].

Called by interpret.py. The float32 cosines and sines are backends.rope_table's; products are summed in float64.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.rope_table import rope_table


def rope(call: OpCall) -> tuple[Array, ...]:
    x = call["x"].astype(np.float64)
    pairs_at = 3 if call.attrs.get("side_by_side", False) else 2
    shape = [len(x), call.attrs["num_heads"], call.attrs["head_dim"] // 2]
    shape.insert(pairs_at, 2)
    heads = x.reshape(shape)
    of_step, pairs = call.step.rope_rows, call.attrs["head_dim"] // 2
    if of_step is None:
        positions = call["positions"] if call.step.rope_positions is None else call.step.rope_positions
        positions = positions[call["rows"]] if "rows" in call.inputs else positions
        table = rope_table(call.attrs["rope"], positions).astype(np.float64)
        cos, sin = table[:, None, :, 0], table[:, None, :, 1]
    else:
        table = (of_step[call["rows"]] if "rows" in call.inputs else of_step).astype(np.float64)
        cos, sin = table[:, None, :pairs], table[:, None, pairs:]
    first, second = np.moveaxis(heads, pairs_at, 0)
    y = np.stack([first * cos - second * sin, second * cos + first * sin], axis=pairs_at)
    if "ahead" in call.attrs:
        y *= growth(call)[:, :, None, None]
    return (y.reshape(x.shape).astype(np.float32),)


def growth(call: OpCall) -> Array:
    """[rows of x, heads] float64 what heads are multiplied by, where slope and start say it."""
    positions = call["positions"] if call.step.rope_positions is None else call.step.rope_positions
    positions = positions[call["rows"]] if "rows" in call.inputs else positions
    far = np.log(positions.astype(np.float64) + call.attrs["ahead"])
    slope, start = (call[role].astype(np.float64) for role in ("slope", "start"))
    return np.asarray(far[:, None] * slope + start)
