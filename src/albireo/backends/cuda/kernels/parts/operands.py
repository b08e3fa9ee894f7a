"""What a chain of additions reads at a step: inputs of its tokens, and words of its weights.

Used inside parts/chain*.py. With TMA operands come by tensor descriptors, which fill what is outside of them with
zeros.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def inputs_of(x_at, at_k, is_token, start, k, first_token, EVEN_K: tl.constexpr, TMA: tl.constexpr):
    if TMA:
        return tl.trans(x_at.load([first_token, start]))
    elif EVEN_K:
        return tl.load(x_at + start, mask=is_token, other=0.0)
    else:
        return tl.load(x_at + start, mask=is_token & (at_k < k - start)[:, None], other=0.0)


@triton.jit
def words_of(weight_at, at, first_row, TMA: tl.constexpr):
    if TMA:
        return weight_at.load([first_row, at])
    else:
        return tl.load(weight_at + at)
