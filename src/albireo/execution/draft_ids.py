"""DraftIds: which of a model's tokens a head guesses among, where it does not guess among all.

Used by draft_head.py. Of a small model most of what a guess takes is its vocabulary: Qwen 3.5 has a quarter of a
million tokens, and any text has a few thousand. So the head has rows for some tokens: first the lowest ids, which are
those that its tokenizer joined first, and so the commonest; whatever is met in prompts and outputs that is not among
them takes the place of what was not met for longest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


class DraftIds:
    """Attributes: of_row: [num_ids] the model's id of each row.

    Args: put: makes the rows from the first one given on those of these ids; num_rows of them at a time, which lie
        together. num_ids: a multiple of num_rows.
    """

    def __init__(self, vocab_size: int, num_ids: int, put: Callable[[int, Ints], None], num_rows: int) -> None:
        assert num_ids % num_rows == 0 and num_ids <= vocab_size
        self.of_row = np.arange(num_ids, dtype=np.int32)
        self._row_of = np.full(vocab_size, -1, np.int32)
        self._row_of[:num_ids] = self.of_row
        self._put, self._num_rows = put, num_rows
        #: Whether the id of a row was met since the hand went over it; and where the hand is.
        self._is_met = np.zeros(num_ids, np.bool_)
        self._hand = 0

    def meet(self, token_ids: Ints) -> None:
        """These were said, and may be said again. Cost: next to nothing where all have rows."""
        rows = self._row_of[token_ids]
        self._is_met[rows[rows >= 0]] = True
        if (rows >= 0).all():
            return
        kept = np.zeros(len(self.of_row), np.bool_)
        kept[rows[rows >= 0]] = True
        new = np.unique(token_ids[rows < 0])[: min(len(kept) // 2, int((~kept).sum()))]
        victims = self._victims(len(new), kept)
        self._row_of[self.of_row[victims]] = -1
        self.of_row[victims] = new
        self._row_of[new] = victims
        self._is_met[victims] = True
        for first in np.unique(victims // self._num_rows) * self._num_rows:
            self._put(int(first), self.of_row[first : first + self._num_rows])

    def _victims(self, count: int, kept: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Rows whose ids were not met while the hand went round once: the next ones from the hand on.

        Args: kept: those that are not to be taken, so many that count are left.
        """
        size = len(self.of_row)
        found: list[int] = []
        while len(found) < count:
            is_free = ~(self._is_met | kept)[self._hand :]
            free = np.flatnonzero(is_free)[: count - len(found)] + self._hand
            found += free.tolist()
            end = size if len(found) < count else found[-1] + 1
            self._is_met[self._hand : end] = False
            kept[free] = True
            self._hand = end % size
        return np.array(found, np.intp)
