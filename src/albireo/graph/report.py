"""PassRecord: what one compiler pass did, what it saved, and where it did not fire and why.

Written by compiler/, kept in Program.report, printed by show.py. Plain data: holds text, neither nodes nor values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: exact: bit-equal. reorder: as many roundings, in another order. removes rounding: fewer than the graph says.
Numerics = Literal["exact", "reorder", "removes rounding"]


@dataclass(frozen=True, slots=True)
class Firing:
    """One place where a pass fired: the ops before and after, as text."""

    where: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One place where a pass nearly fired. labels name the ops concerned (rewrite.label)."""

    labels: tuple[str, ...]
    reason: str


@dataclass(slots=True)
class PassRecord:
    """What one pass did.

    Fields:
        why: one sentence: what the pass is good for.
        ops_before, ops_after: ops in the graph, or calls in the program, before and after.
        saved_bytes: step symbol -> bytes of activations no longer moved for each of its rows.
        notes: facts of a planning pass, a line each.
    """

    name: str
    why: str
    numerics: Numerics
    ops_before: int
    ops_after: int = 0
    firings: list[Firing] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    saved_bytes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def fired(self) -> int:
        return len(self.firings)

    @property
    def saved_ops(self) -> int:
        """Negative when a pass adds ops to save rows."""
        return self.ops_before - self.ops_after
