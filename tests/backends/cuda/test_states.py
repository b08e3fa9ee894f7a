"""DeviceStates: where states lie, and copies of slots."""

from __future__ import annotations

import pytest
import torch

from albireo.backends.cuda.states import DeviceStates
from albireo.errors import InvariantError
from albireo.graph.program import StateLayout

CPU = torch.device("cpu")


def test_copies_are_whole_slots_in_order() -> None:
    states = DeviceStates(StateLayout(((3, 5), (2, 3, 4))), 4, CPU)
    parts = [states.of(0), states.of(1)]
    assert [tuple(part.shape) for part in parts] == [(4, 15), (4, 24)]
    assert all(part.data_ptr() % 16 == 0 and part.stride(0) % 16 == 0 and not part.any() for part in parts)
    for index, part in enumerate(parts):
        part[:] = torch.arange(4.0)[:, None] + 10 * index
    states.copy([(0, 1), (1, 2)])
    for index, part in enumerate(parts):
        assert part[:, 0].tolist() == [10 * index, 10 * index, 10 * index, 3 + 10 * index]
        assert (part == part[:, :1]).all()


def test_slots_are_wanted_where_something_is_kept() -> None:
    DeviceStates(StateLayout(), 0, CPU)
    with pytest.raises(InvariantError, match="no slots"):
        DeviceStates(StateLayout(((1, 4),)), 0, CPU)
