"""What kernels that go on with states of sequences share, each of them a row of slots.

Called by causal_conv.py, gated_delta_rule.py, selective_scan.py and selective_state.py, whose launchers are told
step.StateSlots. states: [slots, any] float32, rows any distance apart; the first numbers of a row are a sequence's. One
whose first token is in the step begins with zeros; its state behind its first snapshot_rows rows of the step goes to
another slot, too, which nobody has (0: to none). A padding sequence has no rows, and nothing of its slot is touched.
"""

from __future__ import annotations

from dataclasses import fields

import triton
import triton.language as tl

from albireo.backends.cuda.step import StateSlots

#: Arguments of a kernel whose launcher is told StateSlots.
SLOT_ARRAYS = tuple(field.name for field in fields(StateSlots))


@triton.jit
def rows_and_slot(sequence, query_start, context_len, state_slots, snapshot_rows):
    """A sequence's first row and the one behind its last, its length with them, its slot, and rows of its snapshot."""
    begin, end = tl.load(query_start + sequence), tl.load(query_start + sequence + 1)
    context, slot = tl.load(context_len + sequence), tl.load(state_slots + sequence)  # all on their way at once
    return begin, end, context, slot, tl.load(snapshot_rows + sequence)


@triton.jit
def load_state(of_slot, goes_on, channel, column, K: tl.constexpr, V: tl.constexpr):
    """Where the numbers of a state [K, V] lie, and what they are: zeros outside, and all where none goes on."""
    num_kept = tl.where(goes_on, K, 0)
    at = of_slot + channel[:, None] * V + column[None, :]
    return at, tl.load(at, mask=(channel < num_kept)[:, None] & (column < V)[None, :], other=0.0)


@triton.jit
def keep_snapshot(at, state, is_state, slot, snapshot_slot, slot_stride):
    """at: of the slot. snapshot_slot: a pointer to the number of the other."""
    other = tl.load(snapshot_slot) - slot
    tl.store(at + other.to(tl.int64) * slot_stride, state, mask=is_state)


@triton.jit
def load_row(keys, values, row, is_channel, is_column, OF_KEYS: tl.constexpr):
    """Two vectors of K [CHANNELS], OF_KEYS apart, and one of V [COLUMNS], of the row that begins at element `row`."""
    first = tl.load(keys + row, mask=is_channel, other=0.0)
    second = tl.load(keys + row + OF_KEYS, mask=is_channel, other=0.0)
    return first, second, tl.load(values + row, mask=is_column, other=0.0)
