"""Convolutions over a few positions, as the matrices that graphs read: one for each position (ZAYA).

Called by weights.py. Channels of a head are in the order in which they are rotated. Does not know graphs.

    X.conv_qk_depthwise.weight [C, 1, a]  -> X.conv_qk_depthwise.S.weight [C, a + S], of what was S positions ago
    X.conv_qk_grouped.weight [C, D, b]    -> X.conv_qk_grouped.J.weight [C, D]
    beside them X.v_delay.weight [V, 2]: what was there a position ago
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors

_GROUPED, _DEPTHWISE, _DELAYED = "conv_qk_grouped.weight", "conv_qk_depthwise.weight", "v_proj_delayed.weight"
_NUMBERS = {"F32": ("float32", "<f4"), "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2")}


def with_positions_apart(plan: Plan, stored: StoredTensors, config: Mapping[str, Any]) -> Plan:
    """The plan with these; the plan itself where there are no such convolutions. Args: config: of config.json."""
    if config.get("model_type") != "zaya":
        return plan
    matrices = dict(plan.matrices)
    for name in stored.names:
        if not name.endswith(f".{_GROUPED}") or len(stored.shape(name)) != 3:
            continue
        block = name.removesuffix(_GROUPED)
        (channels, width, count), depthwise, delayed = stored.shape(name), block + _DEPTHWISE, block + _DELAYED
        if any(each not in stored.names or stored.type_name(each) not in _NUMBERS for each in (name, depthwise)):
            continue  # whoever compares weights says what is missing
        if len(stored.shape(depthwise)) != 3 or delayed not in stored.names:
            continue
        order, dtype = _rotated(width, config), _NUMBERS[stored.type_name(name)][0]
        for place in range(count):
            made = f"{block}conv_qk_grouped.{place}.weight"
            read = partial(_of_position, stored, name, order, place)
            matrices[made] = Matrix(made, (channels, width), None, (name,), read, dtype=dtype)
            made = f"{block}conv_qk_depthwise.{place}.weight"
            read, shape = partial(_ago, stored, depthwise, place), (channels, stored.shape(depthwise)[2] + place)
            kind = _NUMBERS[stored.type_name(depthwise)][0]
            matrices[made] = Matrix(made, shape, None, (depthwise,), read, dtype=kind)
        rows = stored.shape(delayed)[0]
        made = f"{block}v_delay.weight"
        matrices[made] = Matrix(made, (rows, 2), None, (), partial(_one_ago, rows))
    return replace(plan, matrices=matrices)


def _rotated(width: int, config: Mapping[str, Any]) -> NDArray[np.int64]:
    """Channels of a head in the order in which they are rotated: see blocks/head_rows.py."""
    table = config.get("rope_parameters")
    of_layers = table.get("hybrid", table) if isinstance(table, Mapping) else {"partial_rotary_factor": 0.5}
    part = of_layers.get("partial_rotary_factor", 1.0) if isinstance(of_layers, Mapping) else 1.0
    turning = int(width * part) if isinstance(part, (int, float)) else width
    half, still = turning // 2, (width - turning) // 2
    sides = [
        [*range(side * half, (side + 1) * half), *range(turning + side * still, turning + (side + 1) * still)]
        for side in range(2)
    ]
    return np.array([*sides[0], *sides[1]], np.int64)


def _array(stored: StoredTensors, name: str) -> NDArray[np.generic]:
    words = _NUMBERS[stored.type_name(name)][1]
    return np.frombuffer(stored.buffer(name), words).reshape(stored.shape(name))


def _of_position(stored: StoredTensors, name: str, order: NDArray[np.int64], place: int) -> NDArray[np.generic]:
    return np.ascontiguousarray(_array(stored, name)[:, order, place])


def _ago(stored: StoredTensors, name: str, positions: int) -> NDArray[np.generic]:
    numbers = _array(stored, name)[:, 0]
    return np.ascontiguousarray(np.pad(numbers, ((0, 0), (0, positions))))


def _one_ago(rows: int) -> NDArray[np.generic]:
    return np.tile(np.array([1, 0], np.float32), (rows, 1))
