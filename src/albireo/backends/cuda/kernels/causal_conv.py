"""causal_conv: out[t, c] = act(weight[c, 0] * x[t - W + 1, c] + ... + weight[c, W - 1] * x[t, c] (+ bias[c])) over the
rows of each sequence of a step, which its state goes on with; act is silu or nothing. Gated, rows of x are three parts
of C columns: what x is multiplied by before, what out is multiplied by at the end, and x.

x: [T, C] or [T, 3 * C] float32, out: [T, C] of any compute type, apart, rows any distance apart; weight: [C, W] and
bias: [C] float32, contiguous. states: see parts/recurrence.py; a sequence's is rows x[t - W + 1] to x[t - 1], (W - 1) *
C numbers. A program has all rows of one sequence, of some channels, which nobody else reads or writes; where there is
at most a token a sequence, more channels. Padding rows of out are not written. Sums are from the oldest row on: a row's
bits do not depend on the step that it is computed in.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import silu
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.recurrence import SLOT_ARRAYS, rows_and_slot
from albireo.backends.cuda.step import StateSlots

#: Rows and channels of a tile, where sequences have one token each and where they have more.
_ONE, _MANY = (1, 512), (32, 64)


@triton.jit
def causal_conv_kernel(
    x,
    weight,
    bias,
    states,
    state_slots,
    query_start,
    context_len,
    snapshot_slots,
    snapshot_rows,
    out,
    x_stride,
    out_stride,
    slot_stride,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    SILU: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sequence = tl.program_id(1)
    begin, end, context, slot, num_before = rows_and_slot(
        sequence, query_start, context_len, state_slots, snapshot_rows
    )
    if begin < end:
        kept: tl.constexpr = WIDTH - 1
        # rows before this are zeros, which is all of them where the first token is here
        oldest = tl.where(end - begin < context, begin - kept, begin)
        channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        is_channel = channel < CHANNELS
        state = states + slot.to(tl.int64) * slot_stride + channel
        of_x = x + channel
        for first in range(begin, end, ROWS):
            rows = first + tl.arange(0, ROWS)
            total = tl.zeros((ROWS, BLOCK), tl.float32)
            for j in tl.static_range(WIDTH):
                source = rows + (j - kept)
                is_here = (source >= begin) & (source < end)
                of_row = of_x[None, :] + source.to(tl.int64)[:, None] * x_stride
                mask = is_here[:, None] & is_channel[None, :]
                value = tl.load(of_row, mask=mask, other=0.0)
                if GATED:
                    value *= tl.load(of_row + 2 * CHANNELS, mask=mask, other=0.0)
                if j < kept:
                    before = (source < begin) & (source >= oldest)
                    value += tl.load(
                        state[None, :] + (source - begin + kept)[:, None] * CHANNELS,
                        mask=before[:, None] & is_channel[None, :],
                        other=0.0,
                    )
                total += value * tl.load(weight + channel * WIDTH + j, mask=is_channel, other=0.0)[None, :]
            if bias is not None:
                total += tl.load(bias + channel, mask=is_channel, other=0.0)[None, :]
            if SILU:
                total = silu(total)
            mask = (rows < end)[:, None] & is_channel[None, :]
            if GATED:
                of_row = of_x[None, :] + rows.to(tl.int64)[:, None] * x_stride
                total *= tl.load(of_row + CHANNELS, mask=mask, other=0.0)
            to = out + rows.to(tl.int64)[:, None] * out_stride + channel[None, :]
            tl.store(to, round_to(total, out.dtype.element_ty), mask=mask)
        if num_before > 0:
            other = states + tl.load(snapshot_slots + sequence).to(tl.int64) * slot_stride + channel
            _keep(of_x, x_stride, state, other, begin, begin + num_before, oldest, channel, CHANNELS, WIDTH, GATED)
        # last, since old rows are overwritten
        _keep(of_x, x_stride, state, state, begin, end, oldest, channel, CHANNELS, WIDTH, GATED)


@triton.jit
def _keep(
    of_x,
    x_stride,
    state,
    to,
    begin,
    end,
    oldest,
    channel,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    GATED: tl.constexpr,
):
    """Write the WIDTH - 1 rows before row `end` to `to`, which may be `state`: those before `begin` are there."""
    kept: tl.constexpr = WIDTH - 1
    for j in tl.static_range(kept):
        # old rows are read in order, and none is written before it was read
        source = end + (j - kept)
        here = tl.where(source >= begin, CHANNELS, 0)
        before = tl.where((source < begin) & (source >= oldest), CHANNELS, 0)
        of_row = of_x + source.to(tl.int64) * x_stride
        value = tl.load(of_row, mask=channel < here, other=0.0)
        if GATED:
            value *= tl.load(of_row + 2 * CHANNELS, mask=channel < here, other=0.0)
        value += tl.load(state + (source - begin + kept) * CHANNELS, mask=channel < before, other=0.0)
        tl.debug_barrier()  # whichever threads read what is written now
        tl.store(to + j * CHANNELS, value, mask=channel < CHANNELS)


def causal_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    states: torch.Tensor,
    out: torch.Tensor,
    slots: StateSlots,
    bias: torch.Tensor | None = None,
    activation: str = "silu",
    gated: bool = False,
) -> None:
    """states: of the layer, rows as far apart as slots are. activation: one of graph.op_numbers.CONV_ACTIVATIONS."""
    channels, width = weight.shape
    num_sequences = len(slots.context_len)
    rows, block = _ONE if len(x) <= num_sequences else _MANY
    causal_conv_kernel[(triton.cdiv(channels, block), num_sequences)](
        x=x,
        weight=weight,
        bias=bias,
        states=states,
        **slots.arguments(),
        out=out,
        x_stride=x.stride(0),
        out_stride=out.stride(0),
        slot_stride=states.stride(0),
        CHANNELS=channels,
        WIDTH=width,
        SILU=activation == "silu",
        GATED=gated,
        ROWS=rows,
        BLOCK=block,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    floats, strides = ("x", "weight", "states", "out"), ("x_stride", "out_stride", "slot_stride")
    signature = dict.fromkeys(floats, "*fp32") | dict.fromkeys(SLOT_ARRAYS, "*i32") | dict.fromkeys(strides, "i32")

    def case(tile: tuple[int, int], architectures: tuple[int, ...], is_gated: bool = False) -> AotCase:
        """is_gated: LFM2's, of 2048 channels."""
        how = {"CHANNELS": 2048, "WIDTH": 3} if is_gated else {"CHANNELS": 8192, "WIDTH": 4}
        return AotCase(
            f"causal_conv.{'gated.' if is_gated else ''}rows{tile[0]}",
            causal_conv_kernel,
            signature | ({"out": "*bf16"} if is_gated else {}),
            {**how, "SILU": not is_gated, "GATED": is_gated, "ROWS": tile[0], "BLOCK": tile[1], "bias": None},
            aligned=(*floats, *strides),
            max_registers=144,
            max_shared=4 << 10,
            words=dict.fromkeys(architectures, ("LDG.E.128", "STG.E.128")),
            architectures=architectures,
        )

    return [case(_ONE, (90,)), case(_MANY, (80, 100)), case(_ONE, (80,), True), case(_MANY, (90,), True)]
