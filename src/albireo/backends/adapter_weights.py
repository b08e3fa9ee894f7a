"""AdapterWeights: one adapter of low rank (LoRA), as a backend asks for it.

Implemented by models/checkpoint/peft.py, put into slots by a backend. Knows neither slots nor requests.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class AdapterWeights(Protocol):
    """Modules that are changed, and how."""

    @property
    def modules(self) -> Set[str]: ...
    def matrices(self, module: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A [rank, inputs], B [outputs, rank] times the scale: y = x W^T + (x A^T) B^T."""
        ...
