"""Which modules a quantization_config leaves out, by the patterns that it lists.

Called by the format files, for whoever has no tensors to look at. Does not know formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from albireo.json_file import Fields
from albireo.quantization.formats.expressions import Expression, Text

_REGEX = "re:"
#: Characters of patterns with * and of expressions together; a hundred layers of ten patterns have 40,000.
_MAX_CHARS = 2**18


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Cost of a look-up: that of the module's name, however many names are listed; checkpoints of many experts list
    hundreds and have tens of thousands of modules.

    Fields: patterns: a module's name or a run of its parts, with * for any text; or, behind "re:", an expression.
    """

    patterns: tuple[str, ...] = ()
    _runs: frozenset[str] = field(init=False, repr=False, compare=False)
    _globs: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _expressions: tuple[Expression, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises: ValueError for an expression that is none, or is not read."""
        regexes = [p.removeprefix(_REGEX) for p in self.patterns if p.startswith(_REGEX)]
        plain = [p for p in self.patterns if not p.startswith(_REGEX)]
        # translate() makes atomic groups of what is before a *, so that none goes back
        globs = [translate(part) for p in plain if "*" in p for part in (p, f"{p}.*")]
        object.__setattr__(self, "_globs", re.compile("|".join(globs)) if globs else None)
        object.__setattr__(self, "_expressions", tuple(map(Expression, dict.fromkeys(regexes))))
        object.__setattr__(self, "_runs", frozenset(p.strip(".") for p in plain if "*" not in p))

    def __contains__(self, module: object) -> bool:
        """Raises: ModelError where the expressions take too many steps."""
        name = str(module)
        if self._has_run(name.split(".")) or (self._globs and self._globs.match(name)):
            return True
        text = Text(name) if self._expressions else None
        return text is not None and any(one.begins(text) for one in self._expressions)

    def _has_run(self, parts: list[str]) -> bool:
        ends = range(1, len(parts) + 1)
        return bool(self._runs) and any(".".join(parts[i:j]) in self._runs for j in ends for i in range(j))


def parse_left_out(fields: Fields, *keys: str, more: Iterable[str] = ()) -> LeftOut:
    """All of some keys' lists, and more of them. Raises: ModelError for an expression that is none, or is not read."""
    patterns = [*(pattern for key in keys for pattern in fields.texts(key)), *more]
    listed = [pattern for pattern in dict.fromkeys(patterns) if "*" in pattern or pattern.startswith(_REGEX)]
    if sum(map(len, listed)) > _MAX_CHARS:
        fields.fail(keys[0], listed, f"has patterns of more than {_MAX_CHARS:,} characters together")
    for pattern in listed:
        if pattern.startswith(_REGEX):
            try:
                Expression(pattern.removeprefix(_REGEX))
            except ValueError as error:
                fields.fail(keys[0], pattern, str(error))
    return LeftOut(tuple(patterns))
