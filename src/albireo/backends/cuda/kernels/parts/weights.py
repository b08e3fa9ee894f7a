"""What a token weighs when one is drawn, inside kernels: a whole number, so that sums do not depend on their order.

Used by kernels/sample_search.py and sample_draw.py. A weight is exp((logit - peak) / temperature), computed in float64
as the host's sampler does and rounded to a multiple of 2^-bits; the best token weighs 2^bits. Sums of a row are exact,
so a row gives the same token in every batch, and a threshold found among them is the threshold.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Fields of a row's state, int64: order of the best logit; of the lowest kept by top-k; the search's lowest bound; the
#: weight above the bucket that the search is in; the weight it looks for; whether a token is to be drawn.
PEAK = tl.constexpr(0)
CUT = tl.constexpr(1)
LOW = tl.constexpr(2)
ABOVE = tl.constexpr(3)
TARGET = tl.constexpr(4)
DRAWS = tl.constexpr(5)
FIELDS = 8


def weight_bits(vocab: int) -> int:
    """Of a weight's fraction, so that a row's sum stays under 2^62."""
    return 62 - (vocab - 1).bit_length()


@triton.jit
def row_tile(logits, work, row, task, changed, at, stride, vocab):
    """A tile of a task's logits: of its own changed row, or of the row it shares."""
    raw = tl.where(changed, 0, vocab)
    x = tl.load(logits + row.to(tl.int64) * stride + at, mask=at < raw, other=float("-inf"))
    own = tl.where(changed, vocab, 0)
    return tl.where(at < own, tl.load(work + task.to(tl.int64) * vocab + at, mask=at < own, other=0.0), x)


@triton.jit
def weigh(x, peak, temperature, min_p, BITS: tl.constexpr):
    """int64 weights of logits x, none of them NaN or above peak; 0 for what is less than min_p times as probable."""
    weight = tl.exp((x.to(tl.float64) - peak.to(tl.float64)) / temperature)
    weight = tl.where(weight >= min_p, weight, 0.0)
    return (weight * (2.0**BITS) + 0.5).to(tl.int64)


@triton.jit
def arrives_last(arrived, count):
    """Whether the other programs of the count that share this counter are done, so that what they stored can be read.

    The last one sets it to 0 again.
    """
    tl.debug_barrier()
    is_last = tl.atomic_add(arrived, 1, sem="acq_rel", scope="gpu") == count - 1
    if is_last:
        tl.store(arrived, 0)
    return is_last
