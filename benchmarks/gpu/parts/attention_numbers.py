"""Attention and what moves its cache, against torch in float64: see checks_of_attention.py, checks_of_pooled.py for
entries of several positions, and checks_of_choices.py for what rows choose to see."""

from __future__ import annotations

from collections.abc import Iterator

import checks_of_attention
import checks_of_choices
import checks_of_pooled
from checks import run_checks
from report import Row
from setup import Setup


def run(setup: Setup) -> Iterator[Row]:
    yield from run_checks(setup, checks_of_attention.CHECKS | checks_of_choices.CHECKS | checks_of_pooled.CHECKS)
