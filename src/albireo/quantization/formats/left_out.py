"""Which modules a quantization_config leaves out, by the patterns that it lists.

Called by the format files, for whoever has no tensors to look at. Does not know formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from albireo.json_file import Fields

_REGEX = "re:"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Cost of a look-up: that of the module's name, however many names are listed; checkpoints of many experts list
    hundreds and have tens of thousands of modules.

    Fields: patterns: a module's name or a run of its parts, with * for any text; or, behind "re:", an expression.
    """

    patterns: tuple[str, ...] = ()
    _runs: frozenset[str] = field(init=False, repr=False, compare=False)
    _expressions: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        regexes = [p.removeprefix(_REGEX) for p in self.patterns if p.startswith(_REGEX)]
        plain = [p for p in self.patterns if not p.startswith(_REGEX)]
        globs = [translate(part) for p in plain if "*" in p for part in (p, f"{p}.*")]
        together = ["|".join(globs)] if globs else []
        object.__setattr__(self, "_expressions", tuple(re.compile(one) for one in (*together, *regexes)))
        object.__setattr__(self, "_runs", frozenset(p.strip(".") for p in plain if "*" not in p))

    def __contains__(self, module: object) -> bool:
        name = str(module)
        return self._has_run(name.split(".")) or any(one.match(name) for one in self._expressions)

    def _has_run(self, parts: list[str]) -> bool:
        ends = range(1, len(parts) + 1)
        return bool(self._runs) and any(".".join(parts[i:j]) in self._runs for j in ends for i in range(j))


def parse_left_out(fields: Fields, *keys: str, more: Iterable[str] = ()) -> LeftOut:
    """All of some keys' lists, and more of them. Raises: ModelError for an expression that is none."""
    patterns = [*(pattern for key in keys for pattern in fields.texts(key)), *more]
    for pattern in patterns:
        if pattern.startswith(_REGEX):
            try:
                re.compile(pattern.removeprefix(_REGEX))
            except re.error as error:
                fields.fail(keys[0], pattern, f"is no regular expression: {error}")
    return LeftOut(tuple(patterns))
