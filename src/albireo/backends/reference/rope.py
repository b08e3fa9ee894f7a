"""rope: rotates channel pairs (i, i + D/2) of each head by position * inv_freq[i].

Called by interpret.py. The float32 cosines and sines are backends.rope_table's; products are summed in float64.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.rope_table import rope_table


def rope(call: OpCall) -> tuple[Array, ...]:
    x = call["x"].astype(np.float64)
    heads = x.reshape(len(x), call.attrs["num_heads"], 2, call.attrs["head_dim"] // 2)
    of_step, pairs = call.step.rope_rows, call.attrs["head_dim"] // 2
    if of_step is None:
        positions = call["positions"] if call.step.rope_positions is None else call.step.rope_positions
        positions = positions[call["rows"]] if "rows" in call.inputs else positions
        table = rope_table(call.attrs["rope"], positions).astype(np.float64)
        cos, sin = table[:, None, :, 0], table[:, None, :, 1]
    else:
        table = (of_step[call["rows"]] if "rows" in call.inputs else of_step).astype(np.float64)
        cos, sin = table[:, None, :pairs], table[:, None, pairs:]
    first, second = heads[:, :, 0], heads[:, :, 1]
    y = np.stack([first * cos - second * sin, second * cos + first * sin], axis=2)
    return (y.reshape(x.shape).astype(np.float32),)
