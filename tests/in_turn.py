"""Matrices of parameters: each run sees every value of each axis, a thorough one every cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def in_turn(*axes: tuple[str, Iterable[Any]], ids: Callable[[Any], str] | None = None) -> pytest.MarkDecorator:
    """Parametrizes by the product of axes: of each its names ("level", "dtype, level") and its values.

    As many cells as the longest axis has values are ordinary tests, all others are marked `thorough`. The few go
    through each axis in turn. A shorter axis begins each further turn elsewhere: values of two axes that both have two
    would otherwise meet but one of the other.
    """
    names = [name.strip() for each, _ in axes for name in each.split(",")]
    values = [list(each) for _, each in axes]
    longest = max(map(len, values))
    seen = {tuple((k + j * (k // len(v))) % len(v) for j, v in enumerate(values)) for k in range(longest)}
    cells = []
    for cell in itertools.product(*(range(len(each)) for each in values)):
        parts = [values[j][i] for j, i in enumerate(cell)]
        flat = [
            value for (each, _), part in zip(axes, parts, strict=True) for value in (part if "," in each else [part])
        ]
        cells.append(pytest.param(*flat, marks=() if cell in seen else pytest.mark.thorough))
    return pytest.mark.parametrize(names, cells, ids=ids)


def one_in(count: int, cells: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of which each count-th is an ordinary test, from the first on, and all others are `thorough`.

    For matrices that are no product. Where count does not divide the length of a row, the next has others of its cells.
    """
    return [pytest.param(*cell, marks=() if i % count == 0 else pytest.mark.thorough) for i, cell in enumerate(cells)]
