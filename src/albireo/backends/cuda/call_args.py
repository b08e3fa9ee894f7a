"""What a call of the program names, as a launch finds it: activations, constants, arrays of the step.

Made by bind.py once a call. Does not know kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from albireo.backends.cuda.adapters import CudaAdapters
from albireo.backends.cuda.kernels.adapter_add import LowRows
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, RowSquares
from albireo.backends.cuda.kv import DeviceKV
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.scratch import Scratch
from albireo.backends.cuda.states import DeviceStates
from albireo.backends.cuda.step import DeviceStep
from albireo.errors import InvariantError
from albireo.graph.program import Buffer, Call

Launch = Callable[[DeviceStep], None]


@dataclass(frozen=True, slots=True)
class Memory:
    """Where everything a program names lies.

    Fields:
        buffers, specs: activations by name, [largest rows, columns]; and what the program says of them.
        matrices: constants with a packing of rows. vectors: those of one row, and rope tables, float32.
        adapters: their slots, where the program has any.
    """

    buffers: Mapping[str, torch.Tensor]
    specs: Mapping[str, Buffer]
    matrices: Mapping[str, DeviceMatrix]
    vectors: Mapping[str, torch.Tensor]
    kv: DeviceKV
    states: DeviceStates
    scratch: Scratch
    adapters: CudaAdapters | None = None

    @property
    def adapter_slots(self) -> CudaAdapters:
        """Raises: InvariantError where a program has adapters, and was given no slots of any."""
        if self.adapters is None:
            raise InvariantError("a program with adapters runs where there are no slots of them")
        return self.adapters


@dataclass(frozen=True, slots=True)
class CallArgs:
    """What a call's roles name."""

    call: Call
    memory: Memory

    def buffer(self, role: str, within: int = 0) -> Callable[[DeviceStep], torch.Tensor]:
        """The rows that a step has of an activation, or of so many columns from its first on."""
        name = self.call.args[role]
        tensor, rows = self.memory.buffers[name], self.memory.specs[name].rows
        if within:
            tensor = tensor.as_strided((len(tensor), within), tensor.stride())
        if isinstance(rows, int):
            return lambda step: tensor[:rows]
        return lambda step: tensor[: step.sizes[rows]]

    def optional_buffer(self, role: str) -> Callable[[DeviceStep], torch.Tensor | None]:
        return self.buffer(role) if role in self.call.args else lambda step: None

    def ids(self, role: str) -> Callable[[DeviceStep], torch.Tensor]:
        """A step array."""
        name = self.call.args[role]
        if name in ("token_ids", "positions", "token_types"):
            return lambda step: getattr(step, name)
        return lambda step: step.rows[name]

    @property
    def block_group(self) -> int:
        """Which block tables the layer's blocks are in."""
        return self.memory.kv.layout.place(self.call.attrs["layer"])[0]

    def matrix(self, role: str = "weight") -> DeviceMatrix:
        return self.memory.matrices[self.call.args[role]]

    def vector(self, role: str) -> torch.Tensor:
        return self.memory.vectors[self.call.args[role]]

    def optional_vector(self, role: str) -> torch.Tensor | None:
        return self.vector(role) if role in self.call.args else None

    def columns(self, role: str) -> int:
        """Of an activation; of rows of 8-bit codes the codes alone."""
        return self.memory.specs[self.call.args[role]].cols

    def row_squares(self) -> Callable[[DeviceStep], RowSquares | None]:
        """Of the rows of x, where what is multiplied is a norm's."""
        if "norm_eps" not in self.call.attrs:
            return lambda step: None
        role = "row_squares" if "row_squares" in self.call.args else "squares"
        squares, eps, width = self.buffer(role), float(self.call.attrs["norm_eps"]), self.columns("x")
        factors = self.memory.scratch.factors
        return lambda step: RowSquares(squares(step), factors, eps, width)

    def parts_out(self) -> Callable[[DeviceStep], RowParts | None]:
        """Where what a norm of the rows of out is made of is left, where one is."""
        if "gain" not in self.call.args:
            return lambda step: None
        gain, scaled, squares = self.vector("gain"), self.buffer("scaled"), self.buffer("squares")
        return lambda step: RowParts(gain, scaled(step), squares(step))

    def slots(self) -> Callable[[DeviceStep], torch.Tensor]:
        """Of the adapters of the call's rows."""
        name = "adapter_slots" if self.call.rows == "T" else "out_adapter_slots"
        return lambda step: step.rows[name]

    def added(self) -> Callable[[DeviceStep], LowRows | None]:
        """What adapters add to the rows of a linear, where it has any."""
        if "low" not in self.call.args:
            return lambda step: None
        low, slots, all_slots = self.buffer("low"), self.slots(), self.memory.adapter_slots
        of, space = all_slots.of(self.call), all_slots.sums
        return lambda step: LowRows(low(step), slots(step), of.b, of.ranks, of.module_of, space)

    def number(self, name: str) -> int:
        return int(self.call.attrs[name])
