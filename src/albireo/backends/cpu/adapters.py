"""CpuAdapters: the slots of adapters of every linear of a program, in memory as kernels read them.

Made by api/, filled by execution/adapters.py, read by the program that model.py binds. Does not know files or names of
adapters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from albireo import _native
from albireo.backends.adapter_keys import Key, Modules, first_rows, key_of, widest
from albireo.backends.adapter_weights import AdapterWeights
from albireo.graph.program import Call, Program, is_gated

#: Ranks come in whole blocks of so many.
RANK_BLOCK: int = _native.RANK_BLOCK


def padded_rank(max_rank: int) -> int:
    """Ranks that a slot has room for, so that it holds max_rank."""
    return -(-max_rank // RANK_BLOCK) * RANK_BLOCK


def slot_bytes(program: Program, num_slots: int) -> int:
    """Memory of the slots that a program with adapters needs."""
    return sum(_native.adapter_bytes(*shape) for shape, _ in _shapes(program, num_slots).values())


class CpuAdapters:
    """Invariant: a slot holds one adapter, or none; it changes between steps only."""

    def __init__(self, program: Program, num_slots: int) -> None:
        """Args: program: one with adapters. Memory is taken, and touched when a slot is filled."""
        self.num_slots = num_slots
        shapes = _shapes(program, num_slots)
        self._linears = {key: _native.LinearAdapters(*shape) for key, (shape, _) in shapes.items()}
        self._rows = {key: rows for key, (_, rows) in shapes.items()}
        self._module_shapes: dict[str, tuple[int, int]] = {}
        for (modules, inputs), (shape, rows) in shapes.items():
            for (name, first, end), row in zip(modules, rows, strict=True):
                found = {name: (row + end - first, shape[3] if inputs is None else inputs[1])}
                self._module_shapes = widest(self._module_shapes, found)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """module -> outputs, inputs, of those that may have an adapter; of a rank's up to where its part ends."""
        return dict(self._module_shapes)

    def address(self, call: Call) -> int:
        """Where a kernel finds the slots of its linear."""
        address: int = self._linears[key_of(call)].address
        return address

    def put(self, slot: int, adapter: AdapterWeights) -> None:
        """Let a slot hold an adapter, whatever it held. Cost: a copy of it; 10 ms for 16 ranks of a 1 B model."""
        for key, linear in self._linears.items():
            linear.clear(slot)
            modules, inputs = key
            for place, ((name, first, end), row) in enumerate(zip(modules, self._rows[key], strict=True)):
                if name in adapter.modules:
                    a, b = adapter.matrices(name)
                    own = a if inputs is None else np.ascontiguousarray(a[:, inputs[0] : inputs[1]])
                    linear.put(slot, place, own, b[row : row + end - first])


class RankAdapters:
    """The slots of several ranks, each of which has its part of every adapter."""

    def __init__(self, ranks: Sequence[CpuAdapters]) -> None:
        self.ranks = ranks

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """See CpuAdapters; of whole matrices."""
        return widest(*(rank.shapes for rank in self.ranks))

    def put(self, slot: int, adapter: AdapterWeights) -> None:
        """See CpuAdapters."""
        for rank in self.ranks:
            rank.put(slot, adapter)


def _shapes(
    program: Program, num_slots: int
) -> dict[Key, tuple[tuple[list[tuple[int, int]], int, int, int, bool, int], tuple[int, ...]]]:
    """Of each linear with adapters: columns of its parts, slots, ranks, inputs, whether it is gated, and leaves;
    and the first row that it has of each module."""
    ranks = {key_of(call): call.attrs["max_rank"] for call in program.calls if call.family == "adapter"}
    found = {}
    for call in program.calls:
        if call.family == "adapter" or "modules" not in call.attrs:
            continue
        modules: Modules = call.attrs["modules"]
        columns = [(first, end) for _, first, end in modules]
        k = program.buffers[call.args["x"]].cols
        has_gate = is_gated(call.attrs.get("act", "none"))
        shape = (columns, num_slots, ranks[key_of(call)], k, has_gate, call.attrs.get("chunks", 1))
        found[key_of(call)] = (shape, first_rows(call))
    return found
