"""Boxes in ranks: none overlap, order is kept, straight where it can be."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from albireo.inspect.layout import lay_out, spread

PLACES = st.lists(st.tuples(st.floats(-500, 500), st.floats(1, 200)), min_size=1, max_size=12)


@given(PLACES)
def test_spread_keeps_order_and_gaps(places: list[tuple[float, float]]) -> None:
    wanted, widths = [list(column) for column in zip(*places, strict=True)]
    centers = spread(wanted, widths, 10)
    for (a, b), (left, right) in zip(pairwise(centers), pairwise(widths), strict=True):
        assert b - a >= (left + right) / 2 + 10 - 1e-6
    assert abs(sum(centers) - sum(wanted)) < 1e-6 * 500 * len(places) or len(places) > 1
    assert spread(centers, widths, 10) == spread(centers, widths, 10)


def test_spread_moves_no_box_that_has_room() -> None:
    assert spread([0, 100, 200], [50, 50, 50], 10) == [0, 100, 200]
    assert spread([0, 0], [50, 50], 10) == [-30, 30]


def test_a_chain_is_straight_and_lanes_have_their_own_place() -> None:
    boxes = {"top": (0, 40), "a": (1, 40), "b": (1, 40), "a2": (2, 40), "end": (3, 40)}
    wires = [("top", "a"), ("top", "b"), ("a", "a2"), ("a2", "end"), ("b", "end")]
    layout = lay_out(boxes, wires, [range(1), range(1, 3), range(3, 4)], gap=10, lane_width=6)
    x = layout.centers
    assert x["a"] == x["a2"] and x["a"] < x["b"]
    assert len(layout.wires[4]) == 3 and layout.wires[4][1] - x["a2"] >= 20 + 10 + 3
    assert x["top"] == 0 and x["end"] == 0


def test_sections_are_centered() -> None:
    boxes = {i: (1, 40.0) for i in range(3)} | {"next": (2, 40.0)}
    layout = lay_out(boxes, [(2, "next")], [range(1, 2), range(2, 3)], gap=10, lane_width=6)
    assert [layout.centers[i] for i in range(3)] == [-50, 0, 50]
    assert layout.centers["next"] == 0
