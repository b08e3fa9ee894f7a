"""Where a program is cut whose layers have sequences of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.layer_runs import layer_runs
from albireo.errors import InvariantError
from albireo.execution.inputs import step_of
from albireo.execution.vision import vision_programs
from albireo.models.vision.tower import open_tower
from tiny_towers import change_vision, save


@pytest.mark.parametrize(
    ("whole", "layers"),
    [([1, 3], [1, 0, 1, 0]), ([0, 1, 2, 3], [0]), ([], [0]), ([2], [1, 0, 1]), ([0], [0, 1]), ([2, 3], [1, 0])],
)
def test_a_run_has_the_calls_of_one_layer(whole: list[int], layers: list[int], tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, "qwen2_5_vl"), fullatt_block_indexes=whole)
    for program in vision_programs(open_tower(data, "float32", "here"), CpuCatalog(isa_levels()), 160):
        runs = layer_runs(program.calls)
        assert [index for _, run in runs for index in run] == list(range(len(program.calls)))
        if "attention" in {call.family for call in program.calls}:
            assert [layer for layer, _ in runs] == layers
        for layer, run in runs:
            assert {program.calls[index].attrs.get("layer", layer) for index in run} == {layer}


def test_a_step_of_several_sequences() -> None:
    """Each begins a block, behind the null block; all of its rows are its context."""
    step = step_of((np.zeros((40, 3), np.float32),), None, (16, 20, 4), 16)
    step.check(16)
    assert step.block_table.tolist() == [[1, 2], [2, 3], [4, 5]]
    assert step.slots.tolist() == [*range(16, 52), *range(64, 68)]
    with pytest.raises(InvariantError, match="slots of sequence 0"):
        replace(step, slots=step.slots[::-1]).check(16)
