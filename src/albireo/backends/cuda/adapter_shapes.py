"""Shapes of the adapters of a program's linears: what their slots hold, and how many bytes that is.

Needs neither torch nor a GPU, as the catalog. Called by adapters.py, and by whoever shares out memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from albireo.backends.adapter_keys import Key, first_rows, key_of, widest
from albireo.dtypes import FP8_GROUP, FP8_TOKEN
from albireo.graph.program import Program, is_gated

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
        leaves: equal parts of the inputs, each of which is multiplied by its columns of A for itself.
        first_rows: the first row of each module's B that is here; none: all are.
        inputs: first and end of the columns of every A that are here; None: all are.
    """

    columns: tuple[tuple[int, int], ...]
    max_rank: int
    k: int
    rows: int
    has_gate: bool
    has_lines: bool
    leaves: int = 1
    first_rows: tuple[int, ...] = ()
    inputs: tuple[int, int] | None = None

    @property
    def ranks(self) -> int:
        """Of all modules, leaf by leaf: rows of A as they lie, and what a token has of x @ A^T."""
        return self.leaves * len(self.columns) * self.max_rank

    @property
    def row_length(self) -> int:
        """Numbers of a row of A as it lies: of a leaf."""
        k = self.k // self.leaves
        return -(-k // FP8_GROUP) * FP8_GROUP if self.has_lines else k

    @property
    def slot_bytes(self) -> int:
        """Of one slot: A, B and the rank of each module."""
        return _FLOAT_BYTES * (self.ranks * self.row_length + self.max_rank * self.rows + len(self.columns))


def adapter_shapes(program: Program) -> Mapping[Key, AdapterShape]:
    """Of each linear of a program with adapters."""
    ranks = {key_of(call): call.attrs["max_rank"] for call in program.calls if call.family == "adapter"}
    found: dict[Key, AdapterShape] = {}
    for call in program.calls:
        if call.family == "adapter" or "modules" not in call.attrs:
            continue
        key = modules, inputs = key_of(call)
        x, weight = program.buffers[call.args["x"]], program.constants[call.args["weight"]]
        found[key] = AdapterShape(
            tuple((first, end) for _, first, end in modules),
            ranks[key],
            x.cols,
            weight.rows,
            is_gated(call.attrs.get("act", "none")),
            x.dtype == FP8_TOKEN,
            leaves=call.attrs.get("chunks", 1),
            first_rows=first_rows(call),
            inputs=inputs,
        )
    return found


def module_shapes(*programs: Program) -> dict[str, tuple[int, int]]:
    """module -> outputs, inputs, of those that may have an adapter. Args: programs: of each rank of a model."""
    parts = []
    for program in programs:
        for (modules, inputs), shape in adapter_shapes(program).items():
            end_of_inputs = shape.k if inputs is None else inputs[1]
            for (name, first, end), row in zip(modules, shape.first_rows, strict=True):
                parts.append({name: (row + end - first, end_of_inputs)})
    return widest(*parts)


def adapter_bytes(program: Program, num_slots: int) -> int:
    """Of all that a program with adapters needs beside what it needs without them."""
    shapes = adapter_shapes(program).values()
    sums = min(TURN_TOKENS, program.maxima["T"]) * max((shape.rows for shape in shapes), default=0) * _FLOAT_BYTES
    places = sum(shape.rows for shape in shapes) * _FLOAT_BYTES
    return num_slots * sum(shape.slot_bytes for shape in shapes) + sums + places
