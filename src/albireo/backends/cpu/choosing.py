"""Chosen positions: how much memory the threads need that find the best of all, beside what any call needs; and which
lists stand for those that nobody makes.

Called by model.py, which binds what is computed to it, and by api/machine/cpu_device.py, which counts it before
anything is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from albireo.dtypes import itemsize
from albireo.graph.attention_op import lists_of
from albireo.graph.program import Call, Program

#: Positions whose scores are computed at once, see csrc/kernels/attention.
_TILE = 128


def score_bytes(program: Program, max_positions: int) -> int:
    """Of one thread: a score of each position of the longest sequence, or what each block is worth to each head; 0
    where nothing is chosen.
    """
    return max((_numbers(call, max_positions) for call in program.calls), default=0) * itemsize("float32")


def _numbers(call: Call, max_positions: int) -> int:
    if call.family != "choose_keys":
        return 0
    if "block" in call.attrs:
        return int(call.attrs["num_heads"]) * -(-max_positions // int(call.attrs["block"]))
    return -(-max_positions // _TILE) * _TILE


def first_positions(program: Program, calls: Sequence[Call]) -> dict[str, NDArray[np.int32]]:
    """Buffers of chosen positions that some calls read and none of them makes -> rows of the first positions, as many
    in each list, and as far apart, as there."""
    made = {call.args["ids"] for call in calls if call.family == "choose_keys"}
    found = {}
    for call in calls:
        name = call.args.get("chosen")
        if name is None or name in made:
            continue
        buffer, lists = program.buffers[name], lists_of(call.attrs)
        found[name] = np.full((program.maxima["T"], buffer.stride), -1, np.int32)
        found[name][:, : buffer.cols] = np.tile(np.arange(buffer.cols // lists, dtype=np.int32), lists)
    return found
