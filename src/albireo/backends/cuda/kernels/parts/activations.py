"""silu and gelu_tanh of float32 numbers, for kernels. Called by elementwise and gated; any epilogue may.

exp is taken of what may overflow to infinity, which gives the limit: no number that is not there, and no branch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def gelu_tanh(x):
    # x / 2 * (1 + tanh(u)) is x * sigmoid(2u), which loses nothing where tanh is near -1
    twice_inner = 1.5957691216057308 * (x + 0.044715 * x * x * x)
    return x / (1.0 + tl.exp(-twice_inner))
