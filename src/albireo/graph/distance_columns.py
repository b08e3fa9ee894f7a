"""Which column of a table a distance between two tokens has: near ones their own, the others share by logarithm.

Read by backends of attention. Source: He et al. 2021, DeBERTa; the logarithms are those of their code.
"""

from __future__ import annotations

import math


def distance_columns(num_columns: int, reach: int) -> tuple[int, ...]:
    """Of each distance from -reach to reach, the row's position minus the other's; farther ones are as the ends.

    Args: num_columns: an even number; half of them stand for rows behind the other. With a reach of half the columns
        each distance has its own.
    """
    span = num_columns // 2
    return tuple(min(max(_bucket(away, span, reach) + span, 0), num_columns - 1) for away in range(-reach, reach + 1))


def _bucket(away: int, span: int, reach: int) -> int:
    near, far = span // 2, abs(away)
    if reach == span or far <= near:
        return away
    shared = math.ceil(math.log(far / near) / math.log((reach - 1) / near) * (near - 1)) + near
    return shared if away > 0 else -shared
