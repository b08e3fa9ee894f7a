"""StepOutputs: what a step gives, the same for every backend; DrawnTokens: of a device that draws by itself.

Made by a backend's model, read by execution/. Views of memory that a later step overwrites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from albireo.step import TokenLogprobs

#: Of DrawnTokens: in place of what was drawn behind a draft that is wrong.
REFUSED = -2
NOTHING: NDArray[np.float32] = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """Logits of the rows that were asked for; views that the next step overwrites.

    Fields:
        logits: [R, V] float32, rows as in logit_rows.
        top_ids, top_values: [G, TOP_LOGITS] best logits, rows as in top_rows; -1 and -inf behind the last one wanted.
        hidden: [R, E] float32, rows as in logit_rows, of a program that gives hidden states; that has no logits.
        taps: [T, width] float32, of a program with taps: hidden states of all rows, side by side; none of a GPU's,
            which keeps them itself.
        following: [S, E] float32, rows as in out_rows, of a head that drafts: what stands for the next hidden states;
            likewise.
    """

    logits: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_values: NDArray[np.float32]
    hidden: NDArray[np.float32] = field(default_factory=lambda: NOTHING)
    taps: NDArray[np.float32] = field(default_factory=lambda: NOTHING)
    following: NDArray[np.float32] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class DrawnTokens:
    """What a device drew, and was asked to tell.

    Fields:
        tokens: [tasks]; -1 where a row is damaged, or leaves nothing to draw; REFUSED behind drafts that are wrong.
        is_sound: False: a row is damaged or leaves nothing; which, and how, is for the host to find out.
        logprobs: of each task, None for one that did not ask; empty where none did.
        targets: log-probabilities of given tokens, in the order in which they were asked for.
    """

    tokens: NDArray[np.int32]
    is_sound: bool
    logprobs: Sequence[TokenLogprobs | None] = ()
    targets: Sequence[TokenLogprobs] = ()
