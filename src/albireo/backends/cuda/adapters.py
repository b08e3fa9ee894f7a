"""CudaAdapters: the slots of adapters of every linear of a program, in device memory as kernels read them.

Made by api/, filled by execution/adapters.py, read by the programs that model.py binds. Does not know files or names of
adapters. What is allocated here stays where it is, so that recorded steps find it. Of several ranks each has its part
of every adapter; the first tells the others what a slot is to hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.adapter_keys import key_of
from albireo.backends.adapter_weights import AdapterWeights
from albireo.backends.cuda.adapter_shapes import TURN_TOKENS, AdapterShape, adapter_shapes, module_shapes
from albireo.backends.cuda.matrix import PLANE
from albireo.backends.cuda.orders import Leader, SlotPart
from albireo.backends.cuda.tokens import FLOAT_LINE
from albireo.errors import OutOfMemory
from albireo.graph.program import GATE_UP_INTERLEAVE, PANEL, Call, Program


@dataclass(frozen=True, slots=True)
class LinearAdapters:
    """Slots of one linear.

    Fields:
        a: [slots, leaves * modules * max_rank, row length] float32; b: [slots, max_rank, weight rows] float32, times
            the scale; zeros where an adapter has less.
        ranks: [slots, modules] int32. module_of: [weight rows] int32, the module whose outputs a row makes; -1: none.
        rows: of each module, those of the weight that make its outputs.
    """

    shape: AdapterShape
    rows: tuple[NDArray[np.int64], ...]
    a: torch.Tensor
    b: torch.Tensor
    ranks: torch.Tensor
    module_of: torch.Tensor

    @classmethod
    def of(cls, shape: AdapterShape, num_slots: int, device: torch.device) -> LinearAdapters:
        """Empty slots."""

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(sizes, dtype=dtype, device=device)

        rows, module_of = _rows_of(shape), np.full(shape.rows, -1, np.int32)
        for place, some in enumerate(rows):
            module_of[some] = place
        return cls(
            shape,
            rows,
            zeros(num_slots, shape.ranks, shape.row_length),
            zeros(num_slots, shape.max_rank, shape.rows),
            zeros(num_slots, len(shape.columns), dtype=torch.int32),
            torch.from_numpy(module_of).to(device),
        )

    def put(self, slot: int, matrices: list[tuple[NDArray[np.float32], NDArray[np.float32]] | None]) -> None:
        """Let a slot hold the matrices A and B of each module, whole ones of which this has its part, and nothing
        else."""
        shape = self.shape
        a = np.zeros((shape.ranks, shape.row_length), np.float32)
        b = np.zeros((shape.max_rank, shape.rows), np.float32)
        ranks = np.zeros(len(shape.columns), np.int32)
        firsts = shape.first_rows or (0,) * len(shape.columns)
        for place, (rows, first, pair) in enumerate(zip(self.rows, firsts, matrices, strict=True)):
            if pair is None:
                continue
            rank = ranks[place] = len(pair[0])
            own = pair[0] if shape.inputs is None else pair[0][:, slice(*shape.inputs)]
            for leaf, part in enumerate(np.split(own, shape.leaves, axis=1)):
                at = (leaf * len(self.rows) + place) * shape.max_rank
                a[at : at + rank] = _in_lines(part) if shape.has_lines else part
            b[:rank, rows] = pair[1][first : first + len(rows)].T
        # in the stream of the steps: behind those that read the slot, before those that are to read this
        self.a[slot].copy_(torch.from_numpy(a))
        self.b[slot].copy_(torch.from_numpy(b))
        self.ranks[slot].copy_(torch.from_numpy(ranks))


class CudaAdapters:
    """Invariant: a slot holds one adapter, or none; it changes between steps, in the order of the stream, only.

    Fields:
        sums: float32, where the sums of a linear wait for what adapters add; calls run one after another.
        leader: of rank 0 of several; None: it is alone, or told.
    """

    def __init__(
        self,
        program: Program,
        num_slots: int,
        device: torch.device,
        shapes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """Args: program: one with adapters. shapes: of the modules of all ranks together; None: it is alone.

        Raises: OutOfMemory when the GPU has no room.
        """
        own = adapter_shapes(program)
        self.leader: Leader | None = None
        self._module_shapes = module_shapes(program) if shapes is None else shapes
        widest = max((shape.rows for shape in own.values()), default=0)
        try:
            self._linears = {key: LinearAdapters.of(shape, num_slots, device) for key, shape in own.items()}
            self.sums = torch.zeros(min(TURN_TOKENS, program.maxima["T"]) * widest, device=device)
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemory(
                f"the GPU has no room for {num_slots} slots of adapters: {str(error).splitlines()[0]} Lower max_loras "
                "or max_lora_rank, end what else uses the GPU, or use --device cpu"
            ) from None
        #: Modules that are multiplied together -> the linears that do: several where leaves of a sum are.
        self._with_names: dict[tuple[str, ...], list[LinearAdapters]] = {}
        for (modules, _), linear in self._linears.items():
            self._with_names.setdefault(tuple(name for name, _, _ in modules), []).append(linear)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """module -> outputs, inputs, of those that may have an adapter."""
        return dict(self._module_shapes)

    def of(self, call: Call) -> LinearAdapters:
        """The slots of a linear, or of the call that computes x @ A^T for it."""
        return self._linears[key_of(call)]

    def put(self, slot: int, adapter: AdapterWeights) -> None:
        """Let a slot hold an adapter, whatever it held: for the steps that are begun from now on. Cost: a copy of it,
        behind the steps under way; another to each further rank.

        Raises: RankLost.
        """
        for names in self._with_names:
            part = SlotPart(slot, names, {name: adapter.matrices(name) for name in names if name in adapter.modules})
            with nullcontext() if self.leader is None else self.leader.together(0, "put", part):
                self.put_part(part)

    def put_part(self, part: SlotPart) -> None:
        """put(), of the modules that are multiplied together."""
        for linear in self._with_names[part.names]:
            linear.put(part.slot, [part.matrices.get(name) for name in part.names])


def _rows_of(shape: AdapterShape) -> tuple[NDArray[np.int64], ...]:
    """The weight's rows that make the outputs of each module, in order."""
    if not shape.has_gate:
        return tuple(np.arange(first, end) for first, end in shape.columns)
    num_outputs = shape.columns[-1][1] // 2
    place, at = np.divmod(np.arange(2 * num_outputs), num_outputs)
    block, within = np.divmod(at, GATE_UP_INTERLEAVE)
    rows = block * PANEL + place * GATE_UP_INTERLEAVE + within
    return tuple(rows[first:end] for first, end in shape.columns)


def _in_lines(a: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of A in the order of rows of e4m3 (tokens.py): byte 4 i + p of a line is input 32 p + i."""
    lines = np.pad(a, ((0, 0), (0, -a.shape[1] % FLOAT_LINE))).reshape(len(a), -1, FLOAT_LINE // PLANE, PLANE)
    return np.ascontiguousarray(lines.swapaxes(2, 3)).reshape(len(a), -1)
