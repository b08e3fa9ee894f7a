"""In which order steps are recorded ahead of need, and that none is recorded twice."""

from __future__ import annotations

import logging

import pytest

from albireo.backends.cuda.buckets import DRAWS, Bucket, Buckets, Ending
from albireo.backends.cuda.capture import DirectLaunches, Launches
from albireo.backends.cuda.recordings import USUAL, Recordings


class Recorder:
    """Fields: fails: what the next recording raises."""

    fails: Exception | None = None

    def __init__(self) -> None:
        self.num_recorded = 0

    def record(self, launches: Launches) -> Launches:
        if self.fails is not None:
            raise self.fails
        self.num_recorded += 1
        launches()
        return launches


def nothing() -> Launches:
    return lambda: None


def order(recordings: Recordings) -> list[Bucket]:
    found = []
    while (bucket := recordings.next()) is not None:
        recordings.run(bucket, nothing)
        found.append(bucket)
    return found


def test_one_then_powers_of_two_and_the_largest_then_the_others() -> None:
    recorder = Recorder()
    recordings = Recordings(Buckets(72, 40), recorder)
    found = order(recordings)
    sizes = [1, 2, 4, 8, 16, 32, 64, 72, 24, 40, 48, 56]
    mixed = [Bucket(count, *kind, tokens) for tokens in (16, 32, 40) for count in (16, 64, 72) for kind in USUAL]
    assert found == [Bucket(size, *kind) for size in sizes for kind in USUAL] + mixed
    assert found[:2] == [Bucket(1, True, DRAWS), Bucket(1, False, Ending(draws=True, truncates=True))]
    assert recorder.num_recorded == len(recordings) == len(set(found)) == len(found)


def test_sizes_that_only_drafts_have_come_last() -> None:
    recordings = Recordings(Buckets(5, 16, 19), Recorder())
    found = [bucket.size for bucket in order(recordings) if bucket.tokens is None]
    assert found == [size for size in (1, 2, 4, 5, 8, 16, 19) for _ in USUAL]


def test_what_a_step_has_met_is_not_recorded_again_and_its_kind_is_wanted_in_other_sizes() -> None:
    recordings = Recordings(Buckets(4, 16), Recorder())
    assert recordings.next() == Bucket(1, *USUAL[0])
    met = Bucket(2, False, Ending(draws=True, reports=True))
    for bucket in (Bucket(1, *USUAL[0]), met, met):
        recordings.run(bucket, nothing)
    found = order(recordings)
    assert Bucket(1, *USUAL[0]) not in found and met not in found
    assert [(bucket.size, bucket.tokens) for bucket in found if bucket.ending.reports] == [
        (1, None),
        (4, None),
        (4, 16),
    ]
    assert len(found) == 3 * 3 - 1 + 2 + 4


def test_a_step_with_prompts_is_recorded_when_it_is_met_again() -> None:
    recorder, launched = Recorder(), 0

    def launch() -> None:
        nonlocal launched
        launched += 1

    recordings, bucket = Recordings(Buckets(4, 64), recorder), Bucket(4, True, tokens=32)
    for counts in ((1, 0), (2, 1), (3, 1)):
        recordings.run(bucket, lambda: launch)
        assert (launched, recorder.num_recorded) == counts
    assert Bucket(4, *USUAL[0], 16) in order(recordings)


def test_where_steps_are_launched_call_by_call_nothing_is_recorded() -> None:
    recordings = Recordings(Buckets(64, 64), DirectLaunches())
    recordings.run(Bucket(8, True), nothing)
    assert recordings.next() is None


def test_after_a_failure_what_is_recorded_stays_and_the_rest_is_launched(caplog: pytest.LogCaptureFixture) -> None:
    recorder, launched = Recorder(), 0
    recordings = Recordings(Buckets(4, 16), recorder)
    recordings.run(Bucket(1, True), nothing)
    recorder.fails = RuntimeError("CUDA error: out of memory\nand more")
    with pytest.raises(RuntimeError):
        recordings.run(Bucket(2, True), nothing)
    with caplog.at_level(logging.WARNING):
        recordings.give_up(Bucket(2, True), recorder.fails)
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0] and "out of memory" in caplog.messages[0]

    def launch() -> None:
        nonlocal launched
        launched += 1

    for _ in range(2):
        recordings.run(Bucket(2, True), lambda: launch)
    assert (launched, recorder.num_recorded, recordings.next()) == (2, 1, None)
