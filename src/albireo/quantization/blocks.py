"""Blocks: a weight matrix as it lies in a GGUF file, for packers that read its blocks themselves.

Made by models.gguf where rows of whole blocks make the matrix; whoever cannot read them asks for the same matrix as
an Encoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix [N, K] of an encoding.

    Fields:
        encoding: its name: what the blocks of every row stand for.
        types: [N] ggml's number of each row's type; rows of several tensors may be of several.
        rows: [N] address of each row, whose blocks lie one behind the other.
        buffers: what those addresses point into, held so that it stays.
    """

    encoding: str
    shape: tuple[int, int]
    types: NDArray[np.uint8]
    rows: NDArray[np.uint64]
    buffers: tuple[object, ...]
