"""Where a backend's constants come from: what it asks of a checkpoint.

Implemented by models, used by each backend where it brings weights into its layout. Knows neither models nor devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.quantization.blocks import Blocks
from albireo.quantization.encoded import Encoded


class Tensor(Protocol):
    """A weight where it lies; see models.safetensors_file.RawTensor."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def address(self) -> int: ...
    def to_float32(self) -> NDArray[np.float32]: ...


class Weights(Protocol):
    """Where constants come from; see models.weights.Checkpoint. encodings: of those tensors that are in few bits.
    blocks: the same as encoded(), where it lies; None: it is given by encoded() alone."""

    def tensor(self, name: str) -> Tensor: ...
    @property
    def encodings(self) -> Mapping[str, str]: ...
    def encoded(self, name: str) -> Encoded: ...
    def blocks(self, name: str) -> Blocks | None: ...
    def release(self, name: str) -> None: ...
