"""Attention and what moves its cache, against torch in float64: see checks_of_attention.py."""

from __future__ import annotations

from collections.abc import Iterator

from checks import run_checks
from checks_of_attention import CHECKS
from report import Row
from setup import Setup


def run(setup: Setup) -> Iterator[Row]:
    yield from run_checks(setup, CHECKS)
