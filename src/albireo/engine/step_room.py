"""StepRoom: what a step has room for beside tokens, sequences and blocks: rows of prompt log-probabilities, tiles.

Held by scheduler.py, a new one for each step. Does not know budgets, lines or blocks.
"""

from __future__ import annotations

from albireo.engine.request import Sequence
from albireo.engine.settings import EngineSettings


class StepRoom:
    """Attributes: what is left of it: prompt_rows: positions of prompts whose log-probabilities are wanted. tiles: of
    images, that the step may still begin with."""

    def __init__(self, settings: EngineSettings) -> None:
        self.prompt_rows, self.tiles = settings.max_prompt_rows, settings.max_step_tiles
        self._are_images_whole = settings.are_images_whole
        #: Whether the step begins with tiles.
        self.has_tiles = False

    def fitting(self, seq: Sequence, num_new: int, start: int | None = None) -> int:
        """How many of a sequence's next num_new tokens there is room for, and no more than lead to where a snapshot is
        to be taken that others go on from. Args: start: the first of them; None: what is not computed."""
        left = seq.branch_at - seq.num_computed_tokens
        if 0 < left < num_new:
            num_new = left
        start = seq.num_computed_tokens if start is None else start
        return self.with_rows(seq, self.uncut(seq, num_new, start))

    def with_rows(self, seq: Sequence, num_new: int) -> int:
        """How many of num_new tokens find rows, where each wants one of prompt log-probabilities."""
        request = seq.request
        if request.params.prompt_logprobs is None or request.is_prompt_done:
            return num_new
        return min(num_new, self.prompt_rows)

    def uncut(self, seq: Sequence, num_new: int, start: int) -> int:
        """How many of num_new tokens can be computed with the tiles that are left; and without cutting an image, or a
        prompt, where tokens see all of theirs."""
        if not seq.request.images:
            return 0 if start + num_new < seq.request.prefix else num_new
        end = start + num_new
        begun = _tiles_begun(seq, start, end)
        prefix = seq.request.images[0].prefix
        if len(begun) > max(0, self.tiles) and not (prefix and self.tiles > 0):
            end = begun[max(0, self.tiles)]
        if self._are_images_whole:
            # of a prompt that sees itself all pictures are in one step, however many tiles they have
            seen = [image for image in seq.request.images if image.kind != "sound"]
            spans = [(0, prefix)] if prefix else [span for image in seen for span in image.spans]
            end = next((first for first, last in spans if first < end < last), end)
        return max(0, end - start)

    def take(self, seq: Sequence, start: int, end: int, num_rows: int) -> None:
        """Positions start .. end-1 of a sequence are computed, with so many rows."""
        self.prompt_rows -= num_rows
        if seq.request.images:
            num_begun = len(_tiles_begun(seq, start, end))
            self.tiles -= num_begun
            self.has_tiles |= num_begun > 0


def _tiles_begun(seq: Sequence, start: int, end: int) -> list[int]:
    """Positions at which tiles of images begin among tokens start .. end-1."""
    found = []
    for image in seq.request.images:
        going_on = {number for number, _ in image.tiles_within(start - 1, start)}
        found += [at for number, at in image.tiles_within(start, end) if number not in going_on]
    return found
