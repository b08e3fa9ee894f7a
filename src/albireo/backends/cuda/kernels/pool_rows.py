"""pool_rows: of every `every` rows of a sequence one, where such a window of positions ends; other rows are zeros.
Channel by channel the mean of x by the softmax of gates + places[position % every] over the rows of the window, or, of
two series of channels, over the first series of the window before and the last of its own; the first window has none
before it.

x, gates: [T, series * V] float32, rows any distance apart; places: [every, series * V] float32, contiguous; without
both all rows count alike. out: [T, V] float32, apart from them. states: see parts/recurrence.py; a sequence's is [3 or
9, V]: largest gate, sum of powers, sum of products of the rows so far; of two series of the last, of the first for the
next window, of the first for this one. Of what it has of a window before, nothing is read at a window's first row but
that.

A program has COLUMNS channels of a sequence. Where there are several for these, the first takes the two windows that a
state may say something of, and keeps what becomes of it; each other one takes windows of its own, and computes what
the one before leaves to it again. Rows of a window are taken one after another, from its first on: a row's bits do not
depend on the step that it is computed in, nor on who computes it. Padding rows of out are not written.
Source: DeepSeek-AI 2026, DeepSeek-V4.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.recurrence import SLOT_ARRAYS, rows_and_slot
from albireo.backends.cuda.step import StateSlots
from albireo.graph.attention_op import NOTHING_SEEN

_NO_GATE = tl.constexpr(NOTHING_SEEN)
_COLUMNS = 64
#: Programs of some channels, over all sequences: those of a long prompt have a window each.
_MOST = 1024


@triton.jit
def _with_row(most, whole, total, gate, x):
    """A mean of the rows before and this one."""
    above = tl.maximum(most, gate)
    kept, given = tl.exp(most - above), tl.exp(gate - above)
    return above, whole * kept + given, total * kept + given * x


@triton.jit
def _row(of, row, column, is_column):
    return tl.load(of + row + column, mask=is_column, other=0.0)


@triton.jit
def _gate(gates, places, of_gates, of_place, column, is_column):
    gate = tl.zeros(column.shape, tl.float32)
    if gates is not None:
        gate = _row(gates, of_gates, column, is_column) + _row(places, of_place, column, is_column)
    return gate


@triton.jit
def _means(at, there, SERIES: tl.constexpr, V: tl.constexpr):
    """The numbers of a state: of the rows so far, and of two series the other six; there: none are, and gates none."""
    a0 = tl.load(at, mask=there, other=_NO_GATE)
    a1, a2 = tl.load(at + V, mask=there, other=0.0), tl.load(at + 2 * V, mask=there, other=0.0)
    b0, b1, b2, c0, c1, c2 = a0, a1, a2, a0, a1, a2
    if SERIES == 2:
        b0, c0 = tl.load(at + 3 * V, mask=there, other=_NO_GATE), tl.load(at + 6 * V, mask=there, other=_NO_GATE)
        b1, b2 = tl.load(at + 4 * V, mask=there, other=0.0), tl.load(at + 5 * V, mask=there, other=0.0)
        c1, c2 = tl.load(at + 7 * V, mask=there, other=0.0), tl.load(at + 8 * V, mask=there, other=0.0)
    return a0, a1, a2, b0, b1, b2, c0, c1, c2


@triton.jit
def _keep(at, is_column, a0, a1, a2, b0, b1, b2, c0, c1, c2, SERIES: tl.constexpr, V: tl.constexpr):
    """The reverse of _means()."""
    tl.store(at, a0, mask=is_column)
    tl.store(at + V, a1, mask=is_column)
    tl.store(at + 2 * V, a2, mask=is_column)
    if SERIES == 2:
        tl.store(at + 3 * V, b0, mask=is_column)
        tl.store(at + 4 * V, b1, mask=is_column)
        tl.store(at + 5 * V, b2, mask=is_column)
        tl.store(at + 6 * V, c0, mask=is_column)
        tl.store(at + 7 * V, c1, mask=is_column)
        tl.store(at + 8 * V, c2, mask=is_column)


@triton.jit
def _take_rows(
    x, gates, places, out, x_stride, gates_stride, out_stride, column, is_column, first, stop, base, write_from,
    snapshot, snapshot_at, a0, a1, a2, b0, b1, b2, c0, c1, c2,
    SERIES: tl.constexpr, V: tl.constexpr, EVERY: tl.constexpr,
):  # fmt: skip
    """Rows first to stop, whose position is base + row, with what there is before them. Behind row snapshot - 1 what
    is kept goes to snapshot_at, too."""
    last: tl.constexpr = (SERIES - 1) * V
    for t in range(first, stop):
        position = base + t
        place = position % EVERY
        begins = place == 0
        if SERIES == 2:
            goes_on = begins & (position > 0)
            c0 = tl.where(begins, tl.where(goes_on, b0, _NO_GATE), c0)
            c1 = tl.where(begins, tl.where(goes_on, b1, 0.0), c1)
            c2 = tl.where(begins, tl.where(goes_on, b2, 0.0), c2)
            b0, b1, b2 = tl.where(begins, _NO_GATE, b0), tl.where(begins, 0.0, b1), tl.where(begins, 0.0, b2)
        a0, a1, a2 = tl.where(begins, _NO_GATE, a0), tl.where(begins, 0.0, a1), tl.where(begins, 0.0, a2)
        row = position.to(tl.int64) - base
        of_x, of_gates = row * x_stride, row * gates_stride
        of_place = place * (SERIES * V)
        gate = _gate(gates, places, of_gates + last, of_place + last, column, is_column)
        a0, a1, a2 = _with_row(a0, a1, a2, gate, _row(x, of_x + last, column, is_column))
        if SERIES == 2:
            gate = _gate(gates, places, of_gates, of_place, column, is_column)
            b0, b1, b2 = _with_row(b0, b1, b2, gate, _row(x, of_x, column, is_column))
        if t >= write_from:
            mean = tl.zeros(a0.shape, tl.float32)
            if place + 1 == EVERY:
                whole, total = a1, a2
                if SERIES == 2:
                    above = tl.maximum(a0, c0)
                    kept, given = tl.exp(a0 - above), tl.exp(c0 - above)
                    whole, total = a1 * kept + c1 * given, a2 * kept + c2 * given
                mean = tl.div_rn(total, tl.where(is_column, whole, 1.0))
            tl.store(out + row * out_stride + column, mean, mask=is_column)
        if t + 1 == snapshot:
            _keep(snapshot_at, is_column, a0, a1, a2, b0, b1, b2, c0, c1, c2, SERIES, V)
    return a0, a1, a2, b0, b1, b2, c0, c1, c2


@triton.jit
def pool_rows_kernel(
    x,
    gates,
    places,
    states,
    state_slots,
    query_start,
    context_len,
    snapshot_slots,
    snapshot_rows,
    out,
    x_stride,
    gates_stride,
    out_stride,
    slot_stride,
    SERIES: tl.constexpr,
    V: tl.constexpr,
    EVERY: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sequence = tl.program_id(1)
    begin, end, context, slot, num_before = rows_and_slot(
        sequence, query_start, context_len, state_slots, snapshot_rows
    )
    if begin < end:
        column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        is_column = column < V
        base = context - end  # behind which rows are counted
        own = states + slot.to(tl.int64) * slot_stride + column
        # row of the first window's position 0, which may be before the step
        first_row = begin - (base + begin) % EVERY
        last_row = end - 1 - (base + end - 1) % EVERY
        chunk, chunks = tl.program_id(2), tl.num_programs(2)
        if chunk == 0:
            other = states + tl.load(snapshot_slots + sequence).to(tl.int64) * slot_stride + column
            snapshot = tl.where(num_before > 0, begin + num_before, begin)
            head = end
            if chunks > 1:
                head = tl.minimum(end, first_row + 2 * EVERY)
            # the first windows; then what a snapshot, and what the state, is made of, where that is behind these
            kept = tl.where(end - begin < context, V, 0)
            for job in range(3):
                first, stop, write_from = begin, head, begin
                if job > 0:
                    stop = end if job == 2 else snapshot
                    first = stop - 1 - (base + stop - 1) % EVERY - (SERIES - 1) * EVERY
                    write_from, kept = end, kept * 0
                if job == 2:  # of the window that it begins with it does not know what was before
                    snapshot = begin
                if (job == 0) | (stop > head):
                    a0, a1, a2, b0, b1, b2, c0, c1, c2 = _means(own, column < kept, SERIES, V)
                    a0, a1, a2, b0, b1, b2, c0, c1, c2 = _take_rows(
                        x, gates, places, out, x_stride, gates_stride, out_stride, column, is_column, first, stop,
                        base, write_from, snapshot, other, a0, a1, a2, b0, b1, b2, c0, c1, c2, SERIES, V, EVERY,
                    )  # fmt: skip
                    if stop == end:
                        _keep(own, is_column, a0, a1, a2, b0, b1, b2, c0, c1, c2, SERIES, V)
        else:
            for window in range(first_row + (chunk + 1) * EVERY, last_row + 1, (chunks - 1) * EVERY):
                a0, a1, a2, b0, b1, b2, c0, c1, c2 = _means(own, column < 0, SERIES, V)
                _take_rows(
                    x, gates, places, out, x_stride, gates_stride, out_stride, column, is_column,
                    window - (SERIES - 1) * EVERY, tl.minimum(window + EVERY, end), base, window, begin, own,
                    a0, a1, a2, b0, b1, b2, c0, c1, c2, SERIES, V, EVERY,
                )  # fmt: skip


def pool_rows(
    x: torch.Tensor,
    gates: torch.Tensor | None,
    places: torch.Tensor | None,
    states: torch.Tensor,
    out: torch.Tensor,
    slots: StateSlots,
    every: int,
    series: int,
) -> None:
    """states: of the layer, rows as far apart as slots are."""
    width = out.shape[1]
    num_tokens, num_sequences = len(x), len(slots.context_len)
    columns = min(_COLUMNS, max(16, triton.next_power_of_2(width)))
    # a window of each program but the first, unless there would be too many
    windows = triton.cdiv(num_tokens, every)
    chunks = 1 if num_tokens <= max(2 * every, num_sequences) else min(windows, max(1, _MOST // num_sequences))
    pool_rows_kernel[(triton.cdiv(width, columns), num_sequences, chunks)](
        x=x,
        gates=gates,
        places=places,
        states=states,
        **slots.arguments(),
        out=out,
        x_stride=x.stride(0),
        gates_stride=0 if gates is None else gates.stride(0),
        out_stride=out.stride(0),
        slot_stride=states.stride(0),
        SERIES=series,
        V=width,
        EVERY=every,
        COLUMNS=columns,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    floats = ("x", "gates", "places", "states", "out")
    strides = ("x_stride", "gates_stride", "out_stride", "slot_stride")
    signature = dict.fromkeys(floats, "*fp32") | dict.fromkeys(SLOT_ARRAYS, "*i32") | dict.fromkeys(strides, "i32")
    return [
        AotCase(
            f"pool_rows.{every}.{series}",
            pool_rows_kernel,
            signature,
            {"SERIES": series, "V": 512, "EVERY": every, "COLUMNS": _COLUMNS},
            num_warps=1,
            aligned=(*floats, *strides),
            max_registers=128,
            max_shared=1 << 10,
            words=dict.fromkeys(architectures, ("LDG.E.64", "STG.E.64")),
            architectures=architectures,
        )
        for every, series, architectures in ((4, 2, (80, 90, 100)), (128, 1, (90,)))
    ]
