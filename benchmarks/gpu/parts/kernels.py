"""Every other kernel against torch in float64, or against what it has to equal, on random numbers.

A row says the largest error as a part of what the kernel's roundings allow: up to 1 is good.
"""

from __future__ import annotations

from collections.abc import Iterator

import checks_of_adapters
import checks_of_linears
import checks_of_rows
import checks_of_sampling
import checks_of_states
from checks import run_checks
from report import Row
from setup import Setup


def run(setup: Setup) -> Iterator[Row]:
    checks = checks_of_rows.CHECKS | checks_of_sampling.CHECKS | checks_of_linears.CHECKS | checks_of_states.CHECKS
    yield from run_checks(setup, checks | checks_of_adapters.CHECKS)
