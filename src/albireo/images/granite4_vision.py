"""Granite4Vision: pictures as LLaVA-NeXT has them, of whose blocks half as many rows are left in either direction.

Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from albireo.errors import ModelError
from albireo.images.llava_next import LlavaNext
from albireo.images.settings import Settings


@dataclass(frozen=True, slots=True, eq=False)
class Granite4Vision(LlavaNext):
    """See ImageProcessor. Fields: side: rows on that of a block."""

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        said, of_model = (each.text("downsample_rate") for each in (settings.processor, settings.model))
        if said != of_model:
            where, other = settings.processor.where, settings.model.where
            raise ModelError(
                f"{where}: downsample_rate is {said}, but {other} has {of_model}; both must be of one checkpoint"
            )
        found = super(Granite4Vision, cls).read(settings)
        try:
            return replace(found, side=int(found.side * Fraction(said)))
        except (ValueError, ZeroDivisionError):
            settings.processor.fail("downsample_rate", said, "must be two numbers, as 4/8")
