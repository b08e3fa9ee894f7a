"""Every kernel against torch in float64, or against what it has to equal, on random numbers.

A row says the largest error as a part of what the kernel's roundings allow: up to 1 is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import checks_of_attention
import checks_of_linears
import checks_of_rows
import checks_of_sampling
from report import Row
from setup import Setup

#: Each gives (what, error as a part of what is allowed) once or more.
CHECKS: dict[str, Callable[[Setup], Iterator[tuple[str, float]]]] = {
    **checks_of_rows.CHECKS,
    **checks_of_linears.CHECKS,
    **checks_of_attention.CHECKS,
    **checks_of_sampling.CHECKS,
}


def run(setup: Setup) -> Iterator[Row]:
    for what, check in CHECKS.items():
        if setup.seconds_left < 2:
            yield Row(what, note="no time was left", is_good=False)
            continue
        try:
            for name, error in check(setup):
                # JSON knows neither NaN nor infinity
                yield Row(name, min(error, 1e99) if error == error else 1e99, "of the bound", is_good=error <= 1)
        except ImportError as error:
            yield Row(what, note=f"left out: {error}")
        except Exception as error:
            yield Row(what, note=f"{type(error).__name__}: {str(error).strip()[:200]}", is_good=False)
