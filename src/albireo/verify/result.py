"""What a verification found: stages in order, each with its verdict.

Made by run.py, written down by report.py and page.py. Plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["passed", "failed", "not judged"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing that was looked at.

    Fields:
        proves: what it shows, and by what tolerance, in a sentence or two.
        summary: what was found, in a line.
        finding: the first thing that is wrong, by name; empty otherwise.
        figures: numbers for the report, plain data: what JSON holds.
    """

    name: str
    proves: str
    verdict: Verdict
    summary: str
    finding: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verification:
    """Stages in order; none follows one that failed.

    Fields:
        model: facts about both sides, by name, for reading.
        not_run: names of the stages behind one that failed.
        quantized: "here" when the build brought the weights to few bits, "before" when the checkpoint has them so; ""
            when they are numbers.
    """

    model: Mapping[str, str]
    stages: tuple[Stage, ...]
    not_run: tuple[str, ...]
    quantized: Literal["", "here", "before"] = ""

    @property
    def is_verified(self) -> bool:
        return all(stage.verdict != "failed" for stage in self.stages)

    @property
    def finding(self) -> str:
        """What is wrong first; empty when nothing is."""
        return next((f"{stage.name}: {stage.finding}" for stage in self.stages if stage.finding), "")
