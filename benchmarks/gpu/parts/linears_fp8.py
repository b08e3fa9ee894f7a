"""Linears of layers with weights of fp8, as production has them: see checks_of_linears.py."""

from __future__ import annotations

from collections.abc import Iterator

from checks import run_checks
from checks_of_linears import checks_of
from report import Row
from setup import Setup


def run(setup: Setup) -> Iterator[Row]:
    yield from run_checks(setup, checks_of("fp8"))
