"""StoredWeights: a file of constants that were packed earlier, for a backend to read back.

Made by api/sources/engine_source.py from an engine directory. Does not know how constants are packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from albireo.graph.program import PackedConstant


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A weights file.

    Fields:
        constants: those in it, by name, as they were packed.
        offsets: where each begins. The caller has checked that they lie inside the file.
        is_shared: other processes of this machine read the file, too, and it is better in memory once than near each.
    """

    path: Path
    constants: Mapping[str, PackedConstant]
    offsets: Mapping[str, int]
    is_shared: bool = False

    def has(self, constant: PackedConstant) -> bool:
        """False for a rotation table that is stored shorter, or for other frequencies: it is to be computed."""
        stored = self.constants[constant.name]
        return constant.rope is None or (constant.rope == stored.rope and constant.rows <= stored.rows)
