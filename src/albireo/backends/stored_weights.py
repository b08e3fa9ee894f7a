"""StoredWeights: a file of constants that were packed earlier, for a backend to read back.

Made by api/sources/engine_source.py from an engine directory. Does not know how constants are packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from albireo.graph.program import PackedConstant


@dataclass(frozen=True, slots=True)
class RowsOf:
    """Rows of a stored constant. Fields: name: its own; first: of the rows."""

    name: str
    first: int


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A weights file.

    Fields:
        constants: those in it, by name, as they were packed.
        offsets: where each begins. The caller has checked that they lie inside the file.
        parts: constants that are rows of one in it, by name.
        is_shared: other processes of this machine read the file, too, and it is better in memory once than near each.
    """

    path: Path
    constants: Mapping[str, PackedConstant]
    offsets: Mapping[str, int]
    is_shared: bool = False
    parts: Mapping[str, RowsOf] = field(default_factory=dict)

    def has(self, constant: PackedConstant) -> bool:
        """False for a rotation table that is stored shorter, or for other frequencies: it is to be computed."""
        if constant.name in self.parts:
            return True
        stored = self.constants[constant.name]
        return constant.rope is None or (constant.rope == stored.rope and constant.rows <= stored.rows)
