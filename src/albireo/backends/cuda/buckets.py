"""Which sizes a step is padded to, so that one recorded graph serves many steps.

Asked by model.py. Integers only: neither torch nor arrays. A step in which every sequence has one token is padded to
the next bucket; any other is computed at its own size, launch by launch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ending:
    """What follows the logits of a step on the device. Each is a launch or more; a row that does not ask for what it
    does is passed by, so that an ending that does more serves as well.

    Fields:
        draws: a token for each task; where best logits are wanted, the best.
        changes: a task may change logits before. truncates: one may have top-k or top-p.
        reports: log-probabilities.
    """

    draws: bool = False
    changes: bool = False
    truncates: bool = False
    reports: bool = False


NO_ENDING = Ending()
DRAWS = Ending(draws=True)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sizes of a recorded step: each of `size` sequences has one token, and wants its logits or its best few.

    Fields: is_top: the best few.
    """

    size: int
    is_top: bool
    ending: Ending = NO_ENDING

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of the step symbols, tasks that draw (D) and rows that are reported (L), padding included."""
        logits, top = (0, self.size) if self.is_top else (self.size, 0)
        drawn = self.size if self.ending.draws else 0
        reported = self.size if self.ending.reports else 0
        return {"T": self.size, "B": self.size, "R": logits, "G": top, "S": self.size, "D": drawn, "L": reported}


class Buckets:
    """1, 2, 4, 8, 16, 24, … 64, 80, … 256, 288, …, and max_num_seqs itself, where padding would cost the most."""

    def __init__(self, max_num_seqs: int) -> None:
        steps = [1, 2, 4, *range(8, 65, 8), *range(80, 257, 16), *range(288, max_num_seqs + 1, 32)]
        self.sizes = tuple(sorted({size for size in steps if size < max_num_seqs} | {max_num_seqs}))

    def of(self, sizes: Mapping[str, int], ending: Ending = NO_ENDING) -> Bucket | None:
        """The smallest bucket that holds a step; None: it is computed at its own size.

        Args: sizes: of the step: T, B, R, G, D and L.
        """
        num_tokens = sizes["T"]
        is_top = sizes["R"] == 0
        if num_tokens != sizes["B"] or max(sizes["R"], sizes["G"]) != num_tokens or not num_tokens:
            return None
        if min(sizes["R"], sizes["G"]) or num_tokens > self.sizes[-1]:
            return None
        if (ending.draws and sizes["D"] != num_tokens) or (ending.reports and sizes["L"] != num_tokens):
            return None
        return Bucket(self.sizes[bisect_left(self.sizes, num_tokens)], is_top, ending)
