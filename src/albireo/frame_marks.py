"""FrameMarks: what a model that hears frame by frame writes beside its tokens: how many frames pass, and that all have.

Of such a model an output is what its frames say, in order: a token, or a mark behind the vocabulary, which is no text.
Written by execution/writing.py, read by api/transcribe/frame_transcriber.py. A leaf module of integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrameMarks:
    """Fields: vocab_size: ids below it are tokens. most: frames that one mark says at most."""

    vocab_size: int
    most: int

    @property
    def end(self) -> int:
        """The id behind all that was said, which ends an output."""
        return self.vocab_size

    @property
    def num_ids(self) -> int:
        """Of tokens and marks: all ids are below it."""
        return self.vocab_size + 2 + self.most

    def passed(self, count: int) -> int:
        """The id that says that so many frames pass: 0 to most."""
        return self.vocab_size + 1 + count

    def count(self, token_id: int) -> int | None:
        """How many frames an id says that pass; None: it is a token, or the end."""
        return token_id - self.vocab_size - 1 if token_id > self.vocab_size else None

    def spans(self, token_ids: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """Of each token of an output: its id, its place among the output's ids, and the frame that it was said at."""
        frame = 0
        for place, each in enumerate(token_ids):
            passed = self.count(each)
            if passed is not None:
                frame += passed
            elif each < self.vocab_size:
                yield each, place, frame
