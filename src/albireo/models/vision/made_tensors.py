"""Made: a tensor of a tower that no checkpoint has, and what it is made of.

Told by the families, made by tensors.py where a graph reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from albireo.models.vision.patches import F32


@dataclass(frozen=True, slots=True)
class Made:
    """Fields: shape: of it. sources: names of tensors. make: of these, in order, as float32."""

    shape: tuple[int, ...]
    sources: tuple[str, ...]
    make: Callable[..., F32]
