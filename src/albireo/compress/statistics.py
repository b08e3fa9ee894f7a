"""What is remembered of the inputs of a group of linears: their second moments, their sizes, and some of them.

Made by run.py, batch after batch; what methods are given. Memory is K * K and SAMPLE * K, however long the text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ConfigError
from albireo.quantization.encoded import F32

#: Rows that are kept whole, spread over the text.
SAMPLE = 512


class Inputs:
    """Inputs [T, K] of one group.

    Attributes:
        max: [K] largest magnitude of each channel. sample: [at most SAMPLE, K].
    """

    def __init__(self, name: str, width: int, num_rows: int, with_moments: bool) -> None:
        self.max = np.zeros(width, np.float32)
        self._name = name
        self._total = np.zeros(width, np.float64)
        self._moments: NDArray[np.float64] | None = np.zeros((width, width), np.float64) if with_moments else None
        self._num_rows = num_rows
        self._seen = 0
        self._kept: list[F32] = []

    def add(self, x: F32) -> None:
        """Raises: ConfigError when inputs are not finite or so large that their squares are not."""
        size = np.abs(x)
        self.max = np.maximum(self.max, size.max(axis=0, initial=0))
        if not np.isfinite(self.max).all() or self.max.max(initial=0) > 1e18:
            raise ConfigError(
                f"{self._name}: an input of {self.max.max()} on the calibration text; such numbers have no squares in "
                "float32. The model is damaged, or it overflows in this type"
            )
        self._total += size.sum(axis=0, dtype=np.float64)
        if self._moments is not None:
            self._moments += x.T @ x
        wanted = np.unique(np.linspace(0, self._num_rows - 1, min(SAMPLE, self._num_rows)).astype(np.int64))
        inside = wanted[(wanted >= self._seen) & (wanted < self._seen + len(x))] - self._seen
        self._kept.append(x[inside])
        self._seen += len(x)

    @property
    def sample(self) -> F32:
        return np.concatenate(self._kept)

    @property
    def mean(self) -> F32:
        """[K] mean magnitude."""
        return (self._total / max(1, self._seen)).astype(np.float32)

    @property
    def moments(self) -> F32:
        """[K, K] mean of x xᵀ."""
        assert self._moments is not None
        return (self._moments / max(1, self._seen)).astype(np.float32)
