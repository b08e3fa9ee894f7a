"""Convolutions over a few positions, as the matrices that graphs read: one for each position (ZAYA).

Called by weights.py. Channels of a head are in the order in which they are rotated. Builds no graphs.

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

from albireo.graph.op_numbers import MAX_CONV_WIDTH
from albireo.json_file import Fields
from albireo.models.settings.recurrent_settings import MAX_DIM
from albireo.models.settings.rope_settings import MAX_POSITIONS, parse_ropes
from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors

_PART = "partial_rotary_factor"
#: Of a class whose config.json says nothing: positions, and the rotations of layers without and with a window.
ROTATIONS = {
    "max_position_embeddings": 131072,
    "rope_parameters": {
        "hybrid": {"rope_theta": 5000000.0, _PART: 0.5},
        "hybrid_sliding": {"rope_theta": 10000.0, _PART: 0.5},
    },
}
_GROUPED, _DEPTHWISE, _DELAYED = "conv_qk_grouped.weight", "conv_qk_depthwise.weight", "v_proj_delayed.weight"
_NUMBERS = {"F32": ("float32", "<f4"), "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2")}


def with_positions_apart(plan: Plan, stored: StoredTensors, config: Mapping[str, Any]) -> Plan:
    """The plan with these; the plan itself where there are no such convolutions. Args: config: of config.json."""
    if config.get("model_type") != "zaya":
        return plan
    matrices, names = dict(plan.matrices), frozenset(stored.names)
    for name in (each for each in names if each.endswith(f".{_GROUPED}")):
        block = name.removesuffix(_GROUPED)
        depthwise, delayed = block + _DEPTHWISE, block + _DELAYED
        # whoever compares weights says what is missing
        if not {depthwise, delayed} <= names or not _are_convolutions(stored, name, depthwise, delayed):
            continue
        channels, width, count = stored.shape(name)
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


def _are_convolutions(stored: StoredTensors, grouped: str, depthwise: str, delayed: str) -> bool:
    """Whether they are numbers of the same channels, of heads and positions as there may be."""
    if any(stored.type_name(name) not in _NUMBERS for name in (grouped, depthwise)):
        return False
    of_heads, of_channels, of_values = (stored.shape(name) for name in (grouped, depthwise, delayed))
    if len(of_heads) != 3 or len(of_channels) != 3 or len(of_values) != 2:
        return False
    return of_channels[:2] == (of_heads[0], 1) and of_heads[1] <= MAX_DIM and of_heads[2] <= MAX_CONV_WIDTH


def _rotated(width: int, config: Mapping[str, Any]) -> NDArray[np.int64]:
    """Channels of a head in the order in which they are rotated: see blocks/head_rows.py.

    How many are is read as whoever builds the graph reads it, wherever config.json says it: in another order matrices
    would be as large as they are wanted, and wrong.
    Raises: ModelError, as parse_ropes().
    """
    said = {key: value for key, value in config.items() if value is not None}
    fields = Fields({**ROTATIONS, **said}, "config.json")
    positions = fields.integer("max_position_embeddings", 1, MAX_POSITIONS)
    rope, _ = parse_ropes(fields, fields.where, positions, frozenset({_PART}), has_local=True)
    turning = int(width * rope.partial_rotary_factor)
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
