"""PassRecord: what one compiler pass did, what it saved, and where it did not fire and why.

Written by compiler/, kept in Program.report, printed by show.py. Plain data: holds text, neither nodes nor values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

#: exact: bit-equal. reorder: as many roundings, in another order. removes rounding: fewer than the graph says.
#: quantizes: numbers are held in fewer bits.
Numerics = Literal["exact", "reorder", "removes rounding", "quantizes"]

#: What tells one layer's refusal from another's: layer numbers and names of values.
_NUMBERS = re.compile(r"(?<=layers\.)\d+|(?<=%)\d+")


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

    @property
    def outcome(self) -> str:
        """fired 24×, saves 24 ops and 1,024 B per T row; empty for a planning pass, which has notes instead."""
        if not self.fired:
            nothing = "not fired, because there is nothing for it to rewrite"
            return "" if self.notes or self.refusals else nothing
        saved = [_ops(self.saved_ops)] if self.saved_ops > 0 else []
        moved = [f"{count:,} B per {symbol} row" for symbol, count in self.saved_bytes.items()]
        saves = " and ".join([*saved, *([", ".join(moved)] if moved else [])])
        costs = f"costs {_ops(-self.saved_ops)}" if self.saved_ops < 0 else ""
        return ", ".join(part for part in (f"fired {self.fired:,}×", f"saves {saves}" if saves else "", costs) if part)

    @property
    def refused(self) -> list[str]:
        """not fired at layers.0.mlp: linear %16, because %16 has 2 users; like places in one line."""
        alike: dict[tuple[str, str], list[Refusal]] = {}
        for refusal in self.refusals:
            key = (_NUMBERS.sub("#", refusal.labels[0]), _NUMBERS.sub("#", refusal.reason))
            alike.setdefault(key, []).append(refusal)
        return [
            f"not fired at {first.labels[0]}, because {first.reason}"
            + (f"; {len(more)} more places like it" if len(more) > 1 else "; 1 more place like it" if more else "")
            for first, *more in alike.values()
        ]


def _ops(count: int) -> str:
    return f"{count:,} op{'s' * (count != 1)}"
