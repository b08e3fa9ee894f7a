"""Spends bits where they buy most: one option for each group, within a budget.

Called by choosing.py with what sensitivity.py measured. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from albireo.compress.sensitivity import Option
from albireo.errors import ConfigError


def spend(options: Mapping[str, Sequence[Option]], target_bits: float, num_weights: int) -> dict[str, Option]:
    """An option for each group, of at most target_bits a weight together, with little cost together.

    Every group begins with its fewest bits; then the step that saves most cost a bit is taken, again and again, along
    the lower convex hull of each group, until no step fits.
    Raises: ConfigError when the fewest bits are more than that.
    """
    # to the nearest bit: the product of 4.02 and 100 is 401.99999999999994
    budget = round(target_bits * num_weights)
    hulls = {name: _hull(choices) for name, choices in options.items()}
    at = dict.fromkeys(hulls, 0)
    spent = sum(hull[0].bits for hull in hulls.values())
    if spent > budget:
        fewest = math.ceil(100 * spent / num_weights) / 100
        raise ConfigError(
            f"target_bits={target_bits:g} is less than the linears of this model can have, which is {fewest:g} bits a "
            f"weight with their scales; raise it to {fewest:g} or more"
        )
    while True:
        steps = [
            (_gain(hull[at[name]], hull[at[name] + 1]), name)
            for name, hull in hulls.items()
            if at[name] + 1 < len(hull) and spent + hull[at[name] + 1].bits - hull[at[name]].bits <= budget
        ]
        if not steps:
            return {name: hull[at[name]] for name, hull in hulls.items()}
        _, best = max(steps)
        hull = hulls[best]
        spent += hull[at[best] + 1].bits - hull[at[best]].bits
        at[best] += 1


def _gain(less: Option, more: Option) -> float:
    return (less.cost - more.cost) / (more.bits - less.bits)


def _hull(choices: Sequence[Option]) -> list[Option]:
    """Options by bits, each saving less a bit than the one before; none that costs more with more bits."""
    hull: list[Option] = []
    for option in sorted(choices, key=lambda option: (option.bits, option.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull
