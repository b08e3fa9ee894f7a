"""Around: a convolution in groups of channels over all of a sound's frames, zeros before and behind, by Fourier
transforms; and what may stand between two of them. All of it is the host's.

Held by towers that hear samples (wav2vec2.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.models.vision.patches import F32

#: Of the error function: Abramowitz and Stegun 1964, 7.1.26, whose error is 1.5e-7.
_NEAR = 0.3275911
_RATIO = 1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592


@dataclass(frozen=True, slots=True)
class Around:
    """Fields: spectra: complex [frequencies, groups, out, in] of the weight, turned. bias: [E]. reach: frames that it
    sees at once; of an even number one more before than behind."""

    spectra: NDArray[Any]
    bias: F32
    reach: int

    @classmethod
    def of(cls, weight: NDArray[np.float64], bias: F32, groups: int) -> Around:
        """Args: weight: [E, E of a group, reach]."""
        width, size, reach = weight.shape
        # a product with what lies before is one of spectra, of which the weight's is turned
        spectra = np.fft.rfft(weight[:, :, ::-1], _block(reach), axis=2).reshape(groups, width // groups, size, -1)
        return cls(np.ascontiguousarray(spectra.transpose(3, 0, 1, 2).astype(np.complex64)), bias, reach)

    def __call__(self, frames: F32) -> F32:
        """[n, E] of frames [n, E]; overlap-save."""
        (count, width), (_, groups, _, size) = frames.shape, self.spectra.shape
        block = _block(self.reach)
        step, before = block - self.reach + 1, self.reach // 2
        blocks = -(-count // step)
        padded = np.pad(frames, ((before, blocks * step + block), (0, 0)))
        found = np.empty((blocks * step, width), np.float32)
        for first in range(0, blocks * step, step):
            spectrum = np.fft.rfft(padded[first : first + block].astype(np.float64), axis=0).astype(np.complex64)
            # not a BLAS product: its sums depend on how many threads it has
            product = np.einsum("fgoi,fgi->fgo", self.spectra, spectrum.reshape(-1, groups, size))
            whole = np.fft.irfft(product.reshape(-1, width).astype(np.complex128), block, axis=0)
            found[first : first + step] = whole[self.reach - 1 : self.reach - 1 + step]
        return np.ascontiguousarray(found[:count] + self.bias)


def normed(frames: F32, eps: float) -> F32:
    """Each frame less its mean, by its deviation."""
    frames = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    found = frames / np.sqrt((frames**2).mean(axis=1, keepdims=True) + eps)
    return np.asarray(found, np.float32)


def gelu(frames: F32) -> F32:
    """x times how much of a normal distribution is below x: to 1e-7 of |x|."""
    x = frames.astype(np.float64)
    t = 1.0 / (1.0 + _NEAR * np.abs(x) * 0.5**0.5)
    above = 0.5 * t * np.polyval(_RATIO, t) * np.exp(-0.5 * x**2)
    return np.asarray(x * np.where(x < 0.0, above, 1.0 - above), np.float32)


def _block(reach: int) -> int:
    """Frames of one transform: a power of two, of which as many are of use as are not, or more."""
    return 1 << (2 * reach - 1).bit_length()
