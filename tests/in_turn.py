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


def meets(place: int, level: int) -> bool:
    """Whether the place-th of many meets a level of instructions in each run: the first, the machine's best, all do; of
    the others each meets every second."""
    return level == 0 or (place + level) % 2 == 0


def one_in(count: int, cells: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of which each count-th is an ordinary test, and the others are `thorough` if they show nothing else.

    For matrices that are no product. A cell is ordinary, too, if it has a value, or a first two side by side (types and
    level of a kernel), that no ordinary one before it has and no count-th has.
    """
    cells = list(cells)

    def shown(cell: tuple[Any, ...]) -> set[tuple[Any, str]]:
        return {(j, str(value)) for j, value in enumerate(cell)} | {("first two", str(cell[:2]))}

    ordinary = set(range(0, len(cells), count))
    seen = {each for i in ordinary for each in shown(cells[i])}
    for i, cell in enumerate(cells):
        if not shown(cell) <= seen:
            ordinary.add(i)
            seen |= shown(cell)
    return [pytest.param(*cell, marks=() if i in ordinary else pytest.mark.thorough) for i, cell in enumerate(cells)]
