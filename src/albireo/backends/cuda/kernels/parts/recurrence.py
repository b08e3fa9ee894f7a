"""What kernels of recurrences over states of heads share.

Called by gated_delta_rule.py and selective_state.py.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_row(keys, values, row, is_channel, is_column, OF_KEYS: tl.constexpr):
    """Two vectors of K [CHANNELS], OF_KEYS apart, and one of V [COLUMNS], of the row that begins at element `row`."""
    first = tl.load(keys + row, mask=is_channel, other=0.0)
    second = tl.load(keys + row + OF_KEYS, mask=is_channel, other=0.0)
    return first, second, tl.load(values + row, mask=is_column, other=0.0)
