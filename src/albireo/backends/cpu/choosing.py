"""How much memory the threads need that find the best of all positions, beside what any call needs.

Called by model.py, which binds what is computed to it, and by api/cpu_device.py, which counts it before anything is
loaded.
"""

from __future__ import annotations

from albireo.dtypes import itemsize
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
