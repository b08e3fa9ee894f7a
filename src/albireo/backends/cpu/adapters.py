"""CpuAdapters: the slots of adapters of every linear of a program, in memory as kernels read them.

Made by api/, filled by execution/adapters.py, read by the program that model.py binds. Does not know files or names of
adapters.
"""

from __future__ import annotations

from albireo import _native
from albireo.backends.adapter_weights import AdapterWeights
from albireo.graph.program import Program, is_gated

#: Parts of one linear: (module, first column, end).
Modules = tuple[tuple[str, int, int], ...]
#: Ranks come in whole blocks of so many.
RANK_BLOCK: int = _native.RANK_BLOCK


def padded_rank(max_rank: int) -> int:
    """Ranks that a slot has room for, so that it holds max_rank."""
    return -(-max_rank // RANK_BLOCK) * RANK_BLOCK


def slot_bytes(program: Program, num_slots: int) -> int:
    """Memory of the slots that a program with adapters needs."""
    return sum(_native.adapter_bytes(*shape) for shape in _shapes(program, num_slots).values())


class CpuAdapters:
    """Invariant: a slot holds one adapter, or none; it changes between steps only."""

    def __init__(self, program: Program, num_slots: int) -> None:
        """Args: program: one with adapters. Memory is taken, and touched when a slot is filled."""
        self.num_slots = num_slots
        shapes = _shapes(program, num_slots)
        self._linears = {modules: _native.LinearAdapters(*shape) for modules, shape in shapes.items()}
        self._module_shapes = {
            name: (end - first, inputs)
            for modules, (_, _, _, inputs, _) in shapes.items()
            for name, first, end in modules
        }

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """module -> outputs, inputs, of those that may have an adapter."""
        return dict(self._module_shapes)

    def address(self, modules: Modules) -> int:
        """Where the kernels of a linear find its slots."""
        address: int = self._linears[modules].address
        return address

    def put(self, slot: int, adapter: AdapterWeights) -> None:
        """Let a slot hold an adapter, whatever it held. Cost: a copy of it; 10 ms for 16 ranks of a 1 B model."""
        for modules, linear in self._linears.items():
            linear.clear(slot)
            for place, (name, _, _) in enumerate(modules):
                if name in adapter.modules:
                    linear.put(slot, place, *adapter.matrices(name))


def _shapes(program: Program, num_slots: int) -> dict[Modules, tuple[list[tuple[int, int]], int, int, int, bool]]:
    """Of each linear with adapters: columns of its parts, slots, ranks, inputs, and whether it is gated."""
    ranks = {call.attrs["modules"]: call.attrs["max_rank"] for call in program.calls if call.family == "adapter"}
    found = {}
    for call in program.calls:
        if call.family == "adapter" or "modules" not in call.attrs:
            continue
        modules: Modules = call.attrs["modules"]
        columns = [(first, end) for _, first, end in modules]
        k = program.buffers[call.args["x"]].cols
        has_gate = is_gated(call.attrs.get("act", "none"))
        found[modules] = (columns, num_slots, ranks[modules], k, has_gate)
    return found
