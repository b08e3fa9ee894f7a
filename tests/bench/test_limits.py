"""The limits of this machine are measured, with as many bytes as a step reads."""

from __future__ import annotations

import time

import pytest

from albireo.bench.limits import MAX_READ_BYTES, MIN_READ_BYTES, LimitProbe, between
from albireo.bench.roofline import Limits


@pytest.mark.parametrize(("asked", "least"), [(0, MIN_READ_BYTES), (3 << 20, 3 << 20), ((3 << 20) + 1, 3 << 20)])
def test_reads_what_a_step_reads_in_whole_pages(asked, least):
    probe = LimitProbe(2, "float32", asked)
    assert least <= probe.read_bytes < least + 3 * 4096
    assert probe.num_threads == 2


def test_measures():
    probe = LimitProbe(1, "bfloat16", 1 << 20)
    begun = time.perf_counter()
    limits = probe.measure()
    took_s = time.perf_counter() - begun
    assert 0 < probe.read_bytes / limits.read_bytes_per_s < took_s, "one reading is a part of the burst"
    assert limits.dot_flops_per_s >= 0


def test_no_more_than_enough(monkeypatch):
    asked = []

    class Probe:
        def __init__(self, pool, read_bytes):
            asked.append(read_bytes)

    monkeypatch.setattr("albireo.bench.limits.SpeedProbe", Probe)
    LimitProbe(1, "float32", 2**40)
    assert asked == [MAX_READ_BYTES]


def test_between():
    assert between(Limits(2.0, 10.0), Limits(4.0, 30.0)) == Limits(3.0, 20.0)
