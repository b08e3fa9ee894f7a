"""DeviceStep: the arrays of one step in device memory, padded to a bucket.

Filled by staging.py from a StepInputs in one copy, read by kernels. A padding row of T has token 0, position 0 and
slot 0 (the null block); a padding sequence has no rows and context 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True, slots=True)
class StateSlots:
    """Which rows are a sequence's, and where it keeps its states. Fields: those of DeviceStep."""

    state_slots: torch.Tensor
    query_start: torch.Tensor
    context_len: torch.Tensor
    snapshot_slots: torch.Tensor
    snapshot_rows: torch.Tensor

    def arguments(self) -> dict[str, torch.Tensor]:
        """Of kernels that go on with states (kernels/parts/recurrence.py), by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """int32 tensors; the names and meanings are those of backends/step_inputs.py.

    Fields:
        token_ids, positions: [T]. query_start: [B + 1]. context_len: [B].
        slots: [T], of each block group. block_table: [any], one sequence's blocks behind another's. table_start: [B]
            where those of a sequence begin, of each block group.
        rows: logit_rows [R], top_rows [G], out_rows [S], logit_pos [R], top_pos [G] by name; of programs with adapters
            adapter_slots [T] and out_adapter_slots [S], too.
        top_counts: [G]. state_slots: [B] where each sequence keeps its states; of a padding sequence it means nothing.
        snapshot_slots, snapshot_rows: [B]; 0 rows where no snapshot is taken.
        token_types: [T] where the program reads them; else None.
        rope_positions: [T] by which rows are rotated: positions, where the model has no others. rope_rows: [T, D]
            float32, cosines, then sines, that stand for these; row_numbers: [T] 0, 1, 2, … beside it.
        heard: [T] of how many of the positions that layers listen to something is heard, 0: of all; the same in rows of
            a sequence. None where the program listens to none.
        given: [any, width] float32 each; given_rows, row_ends: [T]. None, and no rows, where the step brings none.
        sizes: T, B, R, G, S, D, L of this bucket, padding included; P where the program has experts.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: tuple[torch.Tensor, ...]
    query_start: torch.Tensor
    context_len: torch.Tensor
    block_table: torch.Tensor
    table_start: tuple[torch.Tensor, ...]
    rows: Mapping[str, torch.Tensor]
    top_counts: torch.Tensor
    state_slots: torch.Tensor
    snapshot_slots: torch.Tensor
    snapshot_rows: torch.Tensor
    sizes: Mapping[str, int]
    token_types: torch.Tensor | None = None
    rope_positions: torch.Tensor | None = None
    rope_rows: torch.Tensor | None = None
    row_numbers: torch.Tensor | None = None
    given: tuple[torch.Tensor, ...] = ()
    given_rows: torch.Tensor | None = None
    row_ends: torch.Tensor | None = None
    heard: torch.Tensor | None = None

    def rotation(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What rows are rotated by: a table, the model's or the step's own, and the row of it that each has."""
        if self.rope_rows is not None and self.row_numbers is not None:
            return self.rope_rows, self.row_numbers
        return table, self.turned_positions

    @property
    def turned_positions(self) -> torch.Tensor:
        """[T] by which rows are rotated, and queries grow."""
        return self.positions if self.rope_positions is None else self.rope_positions

    @property
    def for_states(self) -> StateSlots:
        """What kernels that keep states read of sequences."""
        return StateSlots(self.state_slots, self.query_start, self.context_len, self.snapshot_slots, self.snapshot_rows)

    @property
    def num_real(self) -> torch.Tensor:
        """[1] of T, those that are no padding."""
        return self.query_start[-1:]
