"""silu, gelu, gelu_tanh, relu, relu2, xielu, sigmoid, softplus, softcap and clamped_swiglu of float32 numbers, for
kernels. Called by elementwise, epilogues, and kernels of layers with gates.

exp is taken of what may overflow to infinity, which gives the limit: no number that is not there, and no branch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + u), u = e^-|x|, and log(1 + u) = 2 artanh(u / (2 + u)).

    Of that seven terms, whose rest is below 2e-8 of the whole: a GPU's logarithm is off by 2e-7 near 1.
    """
    u = tl.exp(-tl.abs(x))
    s = u / (u + 2.0)
    t = s * s
    series = 0.2857142857 + t * (0.2222222222 + t * (0.1818181818 + t * 0.1538461538))
    return tl.maximum(x, 0.0) + s * (2.0 + t * (0.6666666667 + t * (0.4 + t * series)))


@triton.jit
def gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def relu(x):
    return tl.maximum(x, 0.0)


@triton.jit
def relu2(x):
    return relu(x) * relu(x)


@triton.jit
def xielu(x, of_right, of_left):
    """See graph.ops."""
    below, above = tl.minimum(x, 0.0), tl.maximum(x, 0.0)
    curve = tl.exp(below) - 1.0 - below
    return softplus(of_right) * above * above + (0.5 + softplus(of_left)) * curve + 0.5 * x


@triton.jit
def gelu_tanh(x):
    # x / 2 * (1 + tanh(u)) is x * sigmoid(2u), which loses nothing where tanh is near -1
    twice_inner = 1.5957691216057308 * (x + 0.044715 * x * x * x)
    return x / (1.0 + tl.exp(-twice_inner))


@triton.jit
def softcap(x, cap):
    """cap * tanh(x / cap): near 0 by its series, which loses nothing where an exponential does."""
    t = x * (1.0 / cap)
    s = t * t
    series = 0.13333334 + s * (-0.053968254 + s * (0.021869488 - s * 0.0088632355))
    near = t * (1.0 + s * (-0.33333333 + s * series))
    far = 1.0 - 2.0 / (1.0 + tl.exp(2.0 * t))
    return cap * tl.where(s < 0.16, near, far)


@triton.jit
def clamped_swiglu(gate, up):
    """As graph.ops defines it. NaN is above nothing, and stays."""
    gate = tl.where(gate > 7.0, 7.0, gate)
    up = tl.where(up > 7.0, 7.0, tl.where(up < -7.0, -7.0, up))
    return (up + 1.0) * (gate / (1.0 + tl.exp(gate * -1.702)))
