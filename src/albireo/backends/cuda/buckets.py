"""Which sizes a step is padded to, so that one recorded graph serves many steps.

Asked by model.py. Integers only: neither torch nor arrays. A step in which every sequence has one token is padded to
the next bucket of such steps; so is one with drafts, in which each token wants its logits too, and which has fewer
sequences than tokens: those that are not there have none. A step with prompts, of up to MOST_TOKENS, is padded to so
many tokens and so many sequences: its launches would take the host longer than the device. Any other is computed at its
own size, launch by launch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
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
#: Sizes of steps with prompts: a few more tokens than there are cost less than as many launches. Beyond the last the
#: device is busy for longer than the host.
TOKENS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
MOST_TOKENS = TOKENS[-1]
#: And sequences of such steps, beside the most there can be.
_SEQUENCES = (16, 64, 256)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sizes of a recorded step of `size` sequences, of which each wants its last token's logits or its best few.

    Fields: is_top: the best few. tokens: of all sequences together, where there are prompts among them; None: as many,
        and each wants its logits.
    """

    size: int
    is_top: bool
    ending: Ending = NO_ENDING
    tokens: int | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of the step symbols, tasks that draw (D) and rows that are reported (L), padding included."""
        logits, top = (0, self.size) if self.is_top else (self.size, 0)
        drawn = self.size if self.ending.draws else 0
        reported = self.size if self.ending.reports else 0
        tokens = self.size if self.tokens is None else self.tokens
        return {"T": tokens, "B": self.size, "R": logits, "G": top, "S": self.size, "D": drawn, "L": reported}


class Buckets:
    """1, 2, 4, 8, 16, 24, … 64, 80, … 256, 288, …, and max_num_seqs itself, where padding would cost the most.

    Args: max_tokens: of a step. max_rows: of a step without prompts, drafts included; None: there are no drafts.
    Fields:
        sizes: of steps of one token a sequence, or with drafts. tokens, sequences: of steps with prompts.
        largest: of steps of one token a sequence.
    """

    def __init__(self, max_num_seqs: int, max_tokens: int, max_rows: int | None = None) -> None:
        rows = max_num_seqs if max_rows is None else max_rows
        steps = [1, 2, 4, *range(8, 65, 8), *range(80, 257, 16), *range(288, rows + 1, 32)]
        self.sizes = tuple(sorted({size for size in steps if size < rows} | {max_num_seqs, rows}))
        self.largest = max_num_seqs

        most = min(max_tokens, MOST_TOKENS)
        self.tokens = (*(count for count in TOKENS if count < most), most)
        self.sequences = (*(count for count in _SEQUENCES if count < max_num_seqs), max_num_seqs)

    def of(self, sizes: Mapping[str, int], ending: Ending = NO_ENDING) -> Bucket | None:
        """The smallest bucket that holds a step; None: it is computed at its own size.

        Args: sizes: of the step: T, B, R, G, D and L.
        """
        num_tokens, is_top = sizes["T"], sizes["R"] == 0
        rows = max(sizes["R"], sizes["G"])
        if not rows or min(sizes["R"], sizes["G"]):
            return None
        counts = {rows, sizes["D"] if ending.draws else rows, sizes["L"] if ending.reports else rows}
        if counts == {num_tokens} and sizes["B"] <= num_tokens:
            return Bucket(_least(self.sizes, num_tokens), is_top, ending) if num_tokens <= self.sizes[-1] else None
        most = max(sizes["B"], *counts)
        if num_tokens > self.tokens[-1] or most > self.sequences[-1]:
            return None
        return Bucket(_least(self.sequences, most), is_top, ending, _least(self.tokens, num_tokens))


def _least(sizes: Sequence[int], count: int) -> int:
    """The smallest of sizes, ascending, that is not below count."""
    return sizes[bisect_left(sizes, count)]
