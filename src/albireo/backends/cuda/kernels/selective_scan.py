"""selective_scan: the state space of Mamba 1 over the rows of each sequence of a step; of each channel, S its state:

    S[k] = exp(-exp(a_log[k]) t) S[k] + b[k] t x;  out = sum over k of c[k] S[k], + skip x;  t = softplus(dt + dt_bias)

x, dt: [T, V] float32; bc: [T, 2 K], b, then c; a_log: [V, K] without a gap; dt_bias, skip: [V]; out: [T, V], apart from
x; all float32, rows any distance apart. states: see parts/recurrence.py; a sequence's is S [K, V].

A program has COLUMNS channels of one sequence, from its first row to its last: one shape of tile for one token and for
many, so that a row's bits do not depend on the step that it is computed in. Padding rows of out are not written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import softplus
from albireo.backends.cuda.kernels.parts.recurrence import SLOT_ARRAYS, keep_snapshot, load_state, rows_and_slot
from albireo.backends.cuda.step import StateSlots

#: Numbers of a tile, states and how fast they are left: of K = 16 64 channels, of whose states a thread has 32.
_TILE = 1024
_MOST_COLUMNS = 64


@triton.jit
def _load_keys(at, is_channel, K: tl.constexpr):
    """b and c of a row."""
    return tl.load(at, mask=is_channel, other=0.0), tl.load(at + K, mask=is_channel, other=0.0)


@triton.jit
def selective_scan_kernel(
    x,
    dt,
    bc,
    a_log,
    dt_bias,
    skip,
    states,
    state_slots,
    query_start,
    context_len,
    snapshot_slots,
    snapshot_rows,
    out,
    x_stride,
    dt_stride,
    bc_stride,
    out_stride,
    slot_stride,
    K: tl.constexpr,
    V: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sequence = tl.program_id(1)
    begin, end, context, slot, num_before = rows_and_slot(
        sequence, query_start, context_len, state_slots, snapshot_rows
    )
    snapshot = begin + num_before  # of 0 rows it is where t + 1 never is
    if begin < end:
        channel, column = tl.arange(0, CHANNELS), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        is_channel, is_column = channel < K, column < V
        is_state = is_channel[:, None] & is_column[None, :]
        of_slot = states + slot.to(tl.int64) * slot_stride
        at, state = load_state(of_slot, end - begin < context, channel, column, K, V)
        speed = tl.exp(tl.load(a_log + column[None, :] * K + channel[:, None], mask=is_state, other=0.0))
        bias = tl.load(dt_bias + column, mask=is_column, other=0.0)
        straight = tl.load(skip + column, mask=is_column, other=0.0)

        row, keys, values, times = begin.to(tl.int64), bc + channel, x + column, dt + column
        b, c = _load_keys(keys + row * bc_stride, is_channel, K)
        v = tl.load(values + row * x_stride, mask=is_column, other=0.0)
        time = tl.load(times + row * dt_stride, mask=is_column, other=0.0)
        to = out + row * out_stride + column
        for t in range(begin, end):
            # of the next row, or of the last one again
            row = tl.minimum(t + 1, end - 1).to(tl.int64)
            next_b, next_c = _load_keys(keys + row * bc_stride, is_channel, K)
            next_v = tl.load(values + row * x_stride, mask=is_column, other=0.0)
            next_time = tl.load(times + row * dt_stride, mask=is_column, other=0.0)

            held = softplus(time + bias)
            state = tl.exp(-speed * held[None, :]) * state + b[:, None] * (held * v)[None, :]
            tl.store(to, tl.sum(c[:, None] * state, axis=0) + straight * v, mask=is_column)
            to += out_stride
            if t + 1 == snapshot:
                keep_snapshot(at, state, is_state, slot, snapshot_slots + sequence, slot_stride)
            b, c, v, time = next_b, next_c, next_v, next_time
        tl.store(at, state, mask=is_state)


def selective_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    bc: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    skip: torch.Tensor,
    states: torch.Tensor,
    out: torch.Tensor,
    slots: StateSlots,
) -> None:
    """states: of the layer, rows as far apart as slots are."""
    v_dim, k_dim = a_log.shape
    channels = triton.next_power_of_2(k_dim)
    columns = max(16, min(_MOST_COLUMNS, _TILE // channels))
    selective_scan_kernel[(triton.cdiv(v_dim, columns), len(slots.context_len))](
        x=x,
        dt=dt,
        bc=bc,
        a_log=a_log,
        dt_bias=dt_bias,
        skip=skip,
        states=states,
        **slots.arguments(),
        out=out,
        x_stride=x.stride(0),
        dt_stride=dt.stride(0),
        bc_stride=bc.stride(0),
        out_stride=out.stride(0),
        slot_stride=states.stride(0),
        K=k_dim,
        V=v_dim,
        CHANNELS=channels,
        COLUMNS=columns,
        num_warps=max(1, channels * columns // _TILE),
        enable_fp_fusion=True,
    )


def aot_cases() -> list[AotCase]:
    floats = ("x", "dt", "bc", "a_log", "dt_bias", "skip", "states", "out")
    strides = ("x_stride", "dt_stride", "bc_stride", "out_stride", "slot_stride")
    signature = dict.fromkeys(floats, "*fp32") | dict.fromkeys(SLOT_ARRAYS, "*i32") | dict.fromkeys(strides, "i32")
    return [
        AotCase(
            "selective_scan.16x64",
            selective_scan_kernel,
            signature,
            {"K": 16, "V": 5120, "CHANNELS": 16, "COLUMNS": _MOST_COLUMNS},
            num_warps=1,
            aligned=(*floats, *strides),
            max_registers=255,
            fp_fusion=True,
            max_shared=8 << 10,
            words=dict.fromkeys((80, 90, 100), ("LDG.E.128", "STG.E.128")),
        )
    ]
