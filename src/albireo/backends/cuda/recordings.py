"""Recordings: which steps are recorded, and which comes next while there is nothing to do.

Owned by model.py. A bucket is recorded when a step meets it, one with prompts when a second step does, since there are
many and recording takes longer than launching; or ahead of that, in the order in which they are likely to be met. Does
not know what is launched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain

from albireo.backends.cuda.buckets import DRAWS, Bucket, Buckets, Ending
from albireo.backends.cuda.capture import DirectLaunches, Launches, Recorder

_LOG = logging.getLogger(__name__)

#: What most requests ask for: the best token of each row; one drawn with top-k or top-p; one drawn of all.
USUAL = ((True, DRAWS), (False, Ending(draws=True, truncates=True)), (False, DRAWS))


class Recordings:
    """Invariant: a bucket is recorded once. Fields: are_made: whether steps are recorded here; else none is padded."""

    def __init__(self, buckets: Buckets, recorder: Recorder) -> None:
        self._recorder = recorder
        self.are_made = not isinstance(recorder, DirectLaunches)
        self._recorded: dict[Bucket, Launches] = {}
        #: Of steps with prompts those that one step has met.
        self._met: set[Bucket] = set()
        #: Kinds of buckets there are to be recordings of, those that were met among them.
        self._kinds = dict.fromkeys(USUAL)
        self._mixed = [(count, tokens) for tokens in buckets.tokens for count in buckets.sequences]
        # Powers of two are near every size; the largest step is the one that padding would cost most.
        self._sizes = sorted(buckets.sizes, key=lambda size: (size & (size - 1) != 0 and size != buckets.largest, size))

    def __len__(self) -> int:
        return len(self._recorded)

    def run(self, bucket: Bucket, launches: Callable[[], Launches]) -> None:
        """Compute the step at hand: replay its bucket's recording, or record it. Args: launches: makes those of it."""
        recorded = self._recorded.get(bucket)
        if recorded is not None:
            recorded()
            return
        self._kinds[bucket.is_top, bucket.ending] = None
        if bucket.tokens is not None and bucket not in self._met:
            self._met.add(bucket)
            launches()()
            return
        self._recorded[bucket] = self._recorder.record(launches())

    def next(self) -> Bucket | None:
        """What to record next, by size, then by kind; None: nothing is left, or nothing is recorded here."""
        if isinstance(self._recorder, DirectLaunches):
            return None
        steps = (Bucket(size, *kind) for size in self._sizes for kind in self._kinds)
        mixed = (Bucket(count, *kind, tokens) for count, tokens in self._mixed for kind in self._kinds)
        found = next((bucket for bucket in chain(steps, mixed) if bucket not in self._recorded), None)
        if found is not None:
            self.met(found)
        return found

    def met(self, bucket: Bucket) -> None:
        """It is recorded when it comes next, whether a step has met it or not."""
        self._met.add(bucket)

    def give_up(self, bucket: Bucket, error: Exception) -> None:
        """Recording failed: what is not recorded is launched call by call from now on."""
        words = (str(error).splitlines() or [""])[0]
        _LOG.warning(
            "recording steps of %d failed, %d recordings are kept, other steps are launched call by call: %s: %s",
            bucket.size,
            len(self._recorded),
            type(error).__name__,
            words,
        )
        self._recorder = DirectLaunches()
