"""The line: order whatever the order of arrival in it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from albireo.engine.queue import Line
from albireo.errors import InvariantError


def member(*order: int) -> Any:
    return SimpleNamespace(order=order, seq_id=order[1])


def test_members_are_in_order_of_priority_arrival_and_index() -> None:
    members = [member(p, a, i) for p in (0, 1) for a in range(5) for i in range(2)]
    shuffled = random.Random(0).sample(members, len(members))
    line = Line()
    for one in shuffled:
        line.add(one)
    assert list(line) == members == line.members
    assert len(line) == 20
    line.check_invariants()


def test_remove_takes_the_one_meant() -> None:
    line = Line()
    members = [member(0, a, 0) for a in range(4)]
    for one in members:
        line.add(one)
    line.remove(members[2])
    assert list(line) == [members[0], members[1], members[3]]


def test_removing_a_stranger_is_our_bug() -> None:
    line = Line()
    with pytest.raises(InvariantError, match="not in this line"):
        line.remove(member(0, 1, 0))
    line.add(member(0, 1, 0))
    with pytest.raises(InvariantError, match="not in this line"):
        line.remove(member(0, 1, 0))


def test_check_invariants_sees_disorder() -> None:
    line = Line()
    line.members.extend([member(0, 2, 0), member(0, 1, 0)])
    with pytest.raises(InvariantError, match="out of order"):
        line.check_invariants()
