"""Which modules a quantization_config leaves out, by the patterns that it lists.

Called by the format files, for whoever has no tensors to look at. Does not know formats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from albireo.json_file import Fields

_REGEX = "re:"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Fields: patterns: a module's name or a run of its parts, with * for any text; or, behind "re:", an expression."""

    patterns: tuple[str, ...] = ()

    def __contains__(self, module: object) -> bool:
        name = str(module)
        return any(_matches(pattern, name) for pattern in self.patterns)


def parse_left_out(fields: Fields, *keys: str) -> LeftOut:
    """All of some keys' lists. Raises: ModelError for an expression that is none."""
    patterns = [pattern for key in keys for pattern in fields.texts(key)]
    for pattern in patterns:
        if pattern.startswith(_REGEX):
            try:
                re.compile(pattern.removeprefix(_REGEX))
            except re.error as error:
                fields.fail(keys[0], pattern, f"is no regular expression: {error}")
    return LeftOut(tuple(patterns))


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith(_REGEX):
        return re.match(pattern.removeprefix(_REGEX), name) is not None
    if "*" in pattern:
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
    return f".{pattern.strip('.')}." in f".{name}."
