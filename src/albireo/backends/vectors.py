"""Vectors of constants as numbers: norms and biases, with what a definition does to what is stored.

Used by every backend where it brings constants to its memory, and by the reference. Does not know layouts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.backends.weights import Weights
from albireo.graph.node import ConstantDef

F32 = NDArray[np.float32]


def altered(numbers: F32, definition: ConstantDef) -> F32:
    """(numbers + plus) * factor, each rounded to float32; the same array where that changes nothing. Of absolute values
    where the definition says so."""
    if not definition.is_altered:
        return numbers
    numbers = np.abs(numbers) if definition.is_absolute else numbers
    return (numbers.astype(np.float32) + np.float32(definition.plus)) * np.float32(definition.factor)


def vector_of(definition: ConstantDef, weights: Weights) -> F32:
    """[n] float32."""
    parts = []
    for segment in definition.segments:
        if segment.source is None:
            parts.append(np.zeros(len(segment), np.float32))
        else:
            stored = weights.tensor(segment.source).to_float32()[segment.start : segment.stop]
            parts.append(altered(stored, definition))
    return np.concatenate(parts)
