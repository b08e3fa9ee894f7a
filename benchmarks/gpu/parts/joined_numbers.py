"""Launches that are several calls in one, and those of residual streams, against torch in float64, or bit by bit beside
what they replace: see checks_of_small_calls.py and checks_of_streams.py."""

from __future__ import annotations

from collections.abc import Iterator

import checks_of_small_calls
import checks_of_streams
from checks import run_checks
from report import Row
from setup import Setup


def run(setup: Setup) -> Iterator[Row]:
    yield from run_checks(setup, checks_of_small_calls.CHECKS | checks_of_streams.CHECKS)
