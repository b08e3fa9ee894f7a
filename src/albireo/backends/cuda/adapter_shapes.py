"""Shapes of the adapters of a program's linears: what their slots hold, and how many bytes that is.

Needs neither torch nor a GPU, as the catalog. Called by adapters.py, and by whoever shares out memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from albireo.dtypes import FP8_GROUP, FP8_TOKEN
from albireo.graph.program import Program, is_gated

#: Parts of one linear: (module, first column, end).
Modules = tuple[tuple[str, int, int], ...]
#: Most rows of a linear with adapters whose sums wait in memory at once; more are taken in turns.
TURN_TOKENS = 1024
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """Of one linear.

    Fields:
        columns: (first, end) of each module's outputs, of all of them side by side.
        k: inputs; has_lines: they come as rows of e4m3, in the order and the whole lines that those have.
        rows: of the weight; where there is a gate its rows and those of up take turns.
    """

    columns: tuple[tuple[int, int], ...]
    max_rank: int
    k: int
    rows: int
    has_gate: bool
    has_lines: bool

    @property
    def ranks(self) -> int:
        """Of all modules."""
        return len(self.columns) * self.max_rank

    @property
    def row_length(self) -> int:
        """Numbers of a row of A."""
        return -(-self.k // FP8_GROUP) * FP8_GROUP if self.has_lines else self.k

    @property
    def slot_bytes(self) -> int:
        """Of one slot: A, B and the rank of each module."""
        return _FLOAT_BYTES * (self.ranks * self.row_length + self.max_rank * self.rows + len(self.columns))


def adapter_shapes(program: Program) -> Mapping[Modules, AdapterShape]:
    """Of each linear of a program with adapters."""
    ranks = {call.attrs["modules"]: call.attrs["max_rank"] for call in program.calls if call.family == "adapter"}
    found: dict[Modules, AdapterShape] = {}
    for call in program.calls:
        if call.family == "adapter" or "modules" not in call.attrs:
            continue
        modules: Modules = call.attrs["modules"]
        x, weight = program.buffers[call.args["x"]], program.constants[call.args["weight"]]
        columns = tuple((first, end) for _, first, end in modules)
        has_gate = is_gated(call.attrs.get("act", "none"))
        found[modules] = AdapterShape(columns, ranks[modules], x.cols, weight.rows, has_gate, x.dtype == FP8_TOKEN)
    return found


def adapter_bytes(program: Program, num_slots: int) -> int:
    """Of all that a program with adapters needs beside what it needs without them."""
    shapes = adapter_shapes(program).values()
    sums = min(TURN_TOKENS, program.maxima["T"]) * max((shape.rows for shape in shapes), default=0) * _FLOAT_BYTES
    places = sum(shape.rows for shape in shapes) * _FLOAT_BYTES
    return num_slots * sum(shape.slot_bytes for shape in shapes) + sums + places
