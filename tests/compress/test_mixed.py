"""Spending bits: within the budget, near the best there is, and never on what is not worth it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from albireo.compress.mixed import spend
from albireo.compress.sensitivity import Option
from albireo.errors import ConfigError

BITS = (4, 5, 8, 16)


def options(seed: int, count: int = 5) -> dict[str, list[Option]]:
    """Costs that fall as the square of steps do, from a first one that differs by group."""
    rng = np.random.default_rng(seed)
    found = {}
    for i in range(count):
        size, first = int(rng.integers(1, 9)) * 100, float(np.exp(rng.normal()))
        costs = [first, first / 2, first / 200, 0.0]
        found[f"g{i}"] = [Option(None, size * bits, cost) for bits, cost in zip(BITS, costs, strict=True)]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_it_is_near_the_best_of_all_choices(seed: int) -> None:
    given = options(seed)
    least = sum(choices[0].bits for choices in given.values())
    for factor in (1.0, 1.1, 1.5, 2.2):
        budget = int(least * factor)
        chosen = spend(given, budget, 1)
        assert sum(option.bits for option in chosen.values()) <= budget
        cost = sum(option.cost for option in chosen.values())
        best = min(
            sum(o.cost for o in combination)
            for combination in product(*given.values())
            if sum(o.bits for o in combination) <= budget
        )
        # what a greedy choice may lose is one step of one group
        assert best - 1e-12 <= cost <= best + max(choices[0].cost for choices in given.values()) / 2


def test_enough_bits_cost_nothing() -> None:
    given = options(1)
    assert sum(option.cost for option in spend(given, 10**9, 1).values()) == 0


def test_bits_that_save_nothing_are_not_spent() -> None:
    chosen = spend({"a": [Option(None, 100, 1.0), Option(None, 200, 1.0), Option(None, 300, 2.0)]}, 1000, 1)
    assert chosen["a"].bits == 100


def test_a_budget_below_the_least_says_how_many_bits_would_do() -> None:
    given = {"a": [Option(None, 501, 1.0)]}
    with pytest.raises(ConfigError, match=r"target_bits=4 is less than .* raise it to 5\.01 or more"):
        spend(given, 4, 100)
    assert spend(given, 5.01, 100)["a"].bits == 501


@pytest.mark.parametrize("bits", [402, 406, 410, 414, 427, 501])
def test_as_many_bits_as_the_message_says_do(bits: int) -> None:
    """Their product with the weights may be a little less than the bits that it was made of."""
    given = {"a": [Option(None, bits, 1.0)]}
    with pytest.raises(ConfigError, match="raise it to") as error:
        spend(given, 3.0, 100)
    said = float(str(error.value).rpartition("raise it to ")[2].partition(" ")[0])
    assert spend(given, said, 100)["a"].bits == bits
