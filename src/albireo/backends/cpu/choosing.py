"""How much memory the threads need that find the best of all positions, beside what any call needs.

Called by model.py, which binds what is computed to it, and by api/cpu_device.py, which counts it before anything is
loaded.
"""

from __future__ import annotations

from albireo.dtypes import itemsize
from albireo.graph.program import Program

#: Positions whose scores are computed at once, see csrc/kernels/attention.
_TILE = 128


def score_bytes(program: Program, max_positions: int) -> int:
    """Of one thread: a score of each position of the longest sequence; 0 where nothing is chosen."""
    if all(call.family != "choose_keys" for call in program.calls):
        return 0
    return -(-max_positions // _TILE) * _TILE * itemsize("float32")
