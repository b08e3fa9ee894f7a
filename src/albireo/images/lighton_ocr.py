"""LightOnOcr: LightOnOCR 1 and 2. Pictures are those of Mistral 3; nothing stands between lines of rows, nor behind.

Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from albireo.images.mistral3 import Mistral3
from albireo.images.settings import MAX_STEP, Settings
from albireo.json_file import Fields


@dataclass(frozen=True, slots=True, eq=False)
class LightOnOcr(Mistral3):
    """See ImageProcessor."""

    default_sides: ClassVar[tuple[int, int]] = (14, 2)
    default_tokens: ClassVar[tuple[str, str, str]] = ("<|image_pad|>", "<|vision_pad|>", "<|vision_end|>")

    @classmethod
    def check_sides(cls, settings: Settings, patch: int, merge: int) -> None:
        """The image processor's patch_size is the side of what becomes a row; files first had that of a patch there,
        and meant the same. Raises: UnsupportedModel for another."""
        image, key = settings.image, "patch_size"
        given = image.raw(key)
        table = Fields(given, f"{image.where}: {key}") if isinstance(given, dict) else None
        sides = {table.integer(name, 1, MAX_STEP) for name in ("height", "width")} if table is not None else set()
        found = sides or {image.integer(key, 1, MAX_STEP, 16)}
        if found not in ({patch}, {patch * merge}):
            image.unsupported(key, 16 if given is None else given, f"supported: {patch * merge}, or {patch}")

    def text(self, lines: int, columns: int) -> str:
        return self.image_token * (lines * columns)
