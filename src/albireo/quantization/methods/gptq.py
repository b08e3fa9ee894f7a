"""GPTQ: rounds one input after another and lets the inputs not yet rounded make up for what was lost.

Called by compress/, one matrix at a time. The published algorithm (Frantar et al. 2022) on the Cholesky factor of the
inverse of the inputs' second moments, in blocks; the grid of every group is fixed before, so the order of rounding
changes no group and every matrix stays storable as it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ConfigError
from albireo.quantization.encoded import F32, Encoded
from albireo.quantization.methods.grid import Grid

#: Of the mean of the diagonal, added to it.
DAMPING = 0.01
_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Compensation:
    """How inputs not yet rounded make up for those that are; one serves all linears that read the same inputs.

    Fields:
        order: [K] in which inputs are rounded. factor: [K, K] in that order, see inverse_factor().
    """

    order: NDArray[np.intp]
    factor: F32

    @property
    def weighting(self) -> F32:
        """[K] how much the square of each input's rounding error counts.

        The inputs still to come take over what they can; what is left is the error over the factor's diagonal. So this
        is what a grid should be chosen by, rather than by the moments.
        """
        found = np.empty(len(self.order), np.float32)
        found[self.order] = 1 / np.diagonal(self.factor) ** 2
        return found


def compensation(moments: F32, damping: float = DAMPING, is_ordered: bool = True) -> Compensation:
    """Of the inputs' moments.

    Args:
        moments: [K, K] mean of x xᵀ over inputs x.
        is_ordered: begin with the inputs of the largest moments; groups stay as they lie.
    Raises: ConfigError when moments are no moments: not finite, or not positive definite even when damped.
    Cost: K * K * K multiplications, and some K * K float64 meanwhile.
    """
    order = np.argsort(-np.diagonal(moments), kind="stable") if is_ordered else np.arange(len(moments))
    return Compensation(order, inverse_factor(moments[np.ix_(order, order)], damping))


def gptq(weight: F32, by: Compensation, grid: Grid) -> Encoded:
    """Round a matrix [N, K] such that its outputs change little. grid: the numbers each group may become.

    Cost: N * K * K multiplications and K steps of numpy; N * K float32 beside what is given.
    """
    k, order, factor = weight.shape[1], by.order, by.factor
    columns = np.ascontiguousarray(weight.T[order], np.float32)
    group = grid.encoding.group or k
    codes = np.empty((k, len(weight)), np.uint8)
    for start in range(0, k, _BLOCK):
        stop = min(k, start + _BLOCK)
        lost = np.empty((stop - start, len(weight)), np.float32)
        for i in range(start, stop):
            found, value = grid.nearest(columns[i], int(order[i]) // group)
            codes[order[i]] = found
            lost[i - start] = (columns[i] - value) / factor[i, i]
            columns[i + 1 : stop] -= np.outer(factor[i, i + 1 : stop], lost[i - start])
        columns[stop:] -= factor[start:stop, stop:].T @ lost
    return grid.with_codes(codes.T)


def inverse_factor(moments: F32, damping: float = DAMPING) -> F32:
    """[K, K] upper triangular U with UᵀU the inverse of the damped moments.

    An input that was never anything but zero gets the mean of the others, so that nothing is moved to or from it.
    """
    wide = moments.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ConfigError("the moments of the inputs are not finite; the calibration overflowed")
    diagonal = np.diagonal(wide).copy()
    mean = float(diagonal.mean()) or 1.0
    added = np.where(diagonal > 0, damping * mean, mean)
    wide[np.diag_indices(len(wide))] += added
    try:
        # H = R Rᵀ with R upper triangular, by a Cholesky factor from the other end; then U = inverse of R
        lower = np.linalg.cholesky(wide[::-1, ::-1])
    except np.linalg.LinAlgError:
        raise ConfigError(
            f"the moments of the inputs are not positive definite even with damping {damping}; calibrate on more text"
        ) from None
    return _triangular_inverse(np.ascontiguousarray(lower[::-1, ::-1])).astype(np.float32)


def _triangular_inverse(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K, K] of an upper triangular matrix with a diagonal above zero.

    Halves, whose inverses make that of the whole: a sixth of the multiplications that LAPACK's takes for any matrix,
    and nearly all of them products of matrices.
    """
    size = len(upper)
    if size <= _BLOCK:
        return np.triu(np.linalg.inv(upper))
    half = size // 2
    found = np.zeros_like(upper)
    found[:half, :half] = _triangular_inverse(upper[:half, :half])
    found[half:, half:] = _triangular_inverse(upper[half:, half:])
    found[:half, half:] = -found[:half, :half] @ (upper[:half, half:] @ found[half:, half:])
    return found
