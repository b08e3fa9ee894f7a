"""What a token weighs when one is drawn, inside kernels: a whole number, so that sums do not depend on their order.

Used by kernels/sample_*.py. A weight is exp((logit - peak) / temperature), computed in float64 as the host's sampler
does and rounded to a multiple of 2^-bits; the best token weighs 2^bits. Sums of a row are exact, so a row gives the
same token in every batch, and a threshold found among them is the threshold.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Fields of a row's state, int64: order of the best logit; of the lowest kept by top-k; of the lowest kept by top-p, or
#: a bound below it; the weight above that; the weight that top-p looks for; the order at or above which a logit is a
#: candidate; a bound at or above the lowest kept by top-p.
PEAK = tl.constexpr(0)
CUT = tl.constexpr(1)
LOW = tl.constexpr(2)
ABOVE = tl.constexpr(3)
TARGET = tl.constexpr(4)
BOUND = tl.constexpr(5)
HIGH = tl.constexpr(6)
FIELDS = 8

_LOG2_E = tl.constexpr(1.4426950408889634)
#: 1.5 * 2^52: a float64 below 2^51 in size that is added to it is rounded to a whole number, in its lowest bits.
_WHOLE = tl.constexpr(6755399441055744.0)
_WHOLE_BITS = tl.constexpr(0x4338000000000000)


def weight_bits(vocab: int) -> int:
    """Of a weight's fraction, so that a row's sum stays under 2^62, and a weight where rounding by a sum works."""
    return min(50, 62 - (vocab - 1).bit_length())


@triton.jit
def row_tile(logits, work, row, task, changed, at, there, stride, vocab):
    """Some of a task's logits: of its own changed row, or of the row it shares; -inf where there says no."""
    raw = tl.where(changed, 0, vocab)
    x = tl.load(logits + row.to(tl.int64) * stride + at, mask=there & (at < raw), other=float("-inf"))
    own = tl.where(changed, vocab, 0)
    mine = tl.load(work + task.to(tl.int64) * vocab + at, mask=there & (at < own), other=float("-inf"))
    return tl.maximum(x, mine, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def weigh(x, peak, temperature, min_p, BITS: tl.constexpr):
    """int64 weights of logits x, none of them NaN or above peak; 0 for what is less than min_p times as probable.

    exp is 2^whole * 2^rest with a polynomial for |rest| <= 1/2, within 3 units of a float64's last place. Roundings are
    spelled out: every kernel gives the same bits. What is below 2^-64 of the best weighs nothing anyway.
    """
    power = tl.maximum((x.to(tl.float64) - peak.to(tl.float64)) * (_LOG2_E / temperature), -64.0)
    shifted = power + _WHOLE
    rest = power - (shifted - _WHOLE)
    weight = tl.full(x.shape, 7.070977866508139e-09, tl.float64)
    weight = tl.fma(weight, rest, tl.full(x.shape, 1.0205905413765595e-07, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 1.3215451633221434e-06, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 1.5252672924850737e-05, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 0.00015403530424776529, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 0.0013333558200794592, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 0.009618129107618665, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 0.05550410866465167, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 0.24022650695910075, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 0.6931471805599462, tl.float64))
    weight = tl.fma(weight, rest, tl.full(x.shape, 1.0, tl.float64))
    # times 2^whole: added to the exponent
    whole = shifted.to(tl.int64, bitcast=True) << 52
    weight = (weight.to(tl.int64, bitcast=True) + whole).to(tl.float64, bitcast=True)
    weight = tl.where(weight >= min_p, weight, 0.0)
    rounded = weight * (2.0**BITS) + _WHOLE
    return rounded.to(tl.int64, bitcast=True) - _WHOLE_BITS


@triton.jit
def part_of(whole, top_p):
    """int64: the least weight that is top_p of the whole, at most the whole."""
    part = top_p * whole.to(tl.float64)
    target = part.to(tl.int64)
    target += (target.to(tl.float64) < part).to(tl.int64)
    return tl.minimum(target, whole)
