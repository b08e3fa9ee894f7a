"""The probes give speeds a processor can have."""

from __future__ import annotations

import pytest

from albireo import _native
from albireo.backends.cpu.machine import thread_pool
from albireo.backends.cpu.probe import SpeedProbe


@pytest.mark.parametrize("num_threads", [1, 2])
def test_reads_whole_pages_with_every_thread(num_threads):
    probe = SpeedProbe(thread_pool(num_threads), 100_000)
    assert 100_000 <= probe.read_bytes <= 100_000 + num_threads * 4096
    assert 0 < probe.read() < 1e14


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_dot_products(dtype):
    speed = SpeedProbe(thread_pool(1), 4096).dot(dtype)
    if _native.isa_levels() != ["scalar"]:
        assert 0 < speed < 1e14
    else:
        assert speed == 0.0
