"""selective_state: the state space of Mamba 2 over the rows of each sequence of a step; S is a head's state:

    S = g S + b (t v)^T;  out = c^T S + skip v
    t = softplus(dt + dt_bias), held between dt_least and dt_most;  g = exp(-exp(a_log) t)

x: [T, H V + 2 G K] float32: v of H heads of V channels, then b, then c of G heads of K, which heads share in runs; dt:
[T, H]; a_log, dt_bias, skip: [H]; out: [T, H V], apart from x; all float32, rows any distance apart. states: [slots,
any] float32, of whose rows the first H * K * V numbers are S [H, K, V] of one sequence; state_slots, context_len,
snapshot_slots, snapshot_rows: [B], query_start: [B + 1] int32. A sequence whose first token is in the step begins with
zeros, and may leave a snapshot behind a row, as in gated_delta_rule.py.

A program has one head of one sequence, and COLUMNS of V, from its first row to its last, as in gated_delta_rule.py: one
shape of tile for one token and for many, so that a row's bits do not depend on the step that it is computed in. A
padding sequence has no rows, and nothing of its slot is touched; padding rows of out are not written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import softplus
from albireo.backends.cuda.kernels.parts.recurrence import load_row

#: Of V, of a program: rows of 64 bytes of each channel of K, in 64 registers of a thread.
_COLUMNS = 16
#: Channels of K that a warp has.
_CHANNELS = 128


@triton.jit
def selective_state_kernel(
    x,
    dt,
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
    out_stride,
    slot_stride,
    dt_least,
    dt_most,
    K_HEADS: tl.constexpr,
    V_HEADS: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    head, sequence = tl.program_id(1), tl.program_id(2)
    begin, end = tl.load(query_start + sequence), tl.load(query_start + sequence + 1)
    context, slot = tl.load(context_len + sequence), tl.load(state_slots + sequence)  # all on their way at once
    snapshot = begin + tl.load(snapshot_rows + sequence)  # of 0 rows it is where t + 1 never is
    if begin < end:
        channel, column = tl.arange(0, CHANNELS), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        is_channel, is_column = channel < K, column < V
        num_kept = tl.where(end - begin < context, K, 0)
        at = states + slot.to(tl.int64) * slot_stride + head * (K * V)
        at = at + channel[:, None] * V + column[None, :]
        state = tl.load(at, mask=(channel < num_kept)[:, None] & is_column[None, :], other=0.0)

        keys = x + V_HEADS * V + head // (V_HEADS // K_HEADS) * K + channel
        values, times = x + head * V + column, dt + head
        speed, bias, straight = tl.exp(tl.load(a_log + head)), tl.load(dt_bias + head), tl.load(skip + head)
        row = begin.to(tl.int64)
        b, c, v = load_row(keys, values, row * x_stride, is_channel, is_column, K_HEADS * K)
        time = tl.load(times + row * dt_stride)
        to = out + row * out_stride + head * V + column
        for t in range(begin, end):
            # of the next row, or of the last one again
            row = tl.minimum(t + 1, end - 1).to(tl.int64)
            next_b, next_c, next_v = load_row(keys, values, row * x_stride, is_channel, is_column, K_HEADS * K)
            next_time = tl.load(times + row * dt_stride)

            held = tl.minimum(tl.maximum(softplus(time + bias), dt_least), dt_most)
            state = tl.exp(-speed * held) * state + b[:, None] * (held * v)[None, :]
            tl.store(to, tl.sum(c[:, None] * state, axis=0) + straight * v, mask=is_column)
            to += out_stride
            if t + 1 == snapshot:
                other = tl.load(snapshot_slots + sequence) - slot
                tl.store(at + other.to(tl.int64) * slot_stride, state, mask=is_channel[:, None] & is_column[None, :])
            b, c, v, time = next_b, next_c, next_v, next_time
        tl.store(at, state, mask=is_channel[:, None] & is_column[None, :])


def selective_state(
    x: torch.Tensor,
    dt: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    skip: torch.Tensor,
    states: torch.Tensor,
    out: torch.Tensor,
    state_slots: torch.Tensor,
    query_start: torch.Tensor,
    context_len: torch.Tensor,
    snapshot_slots: torch.Tensor,
    snapshot_rows: torch.Tensor,
    num_k_heads: int,
    k_dim: int,
    v_dim: int,
    dt_least: float = 0.0,
    dt_most: float = float("inf"),
) -> None:
    """states: of the layer, rows as far apart as slots are."""
    num_v_heads, channels = len(a_log), triton.next_power_of_2(k_dim)
    selective_state_kernel[(triton.cdiv(v_dim, _COLUMNS), num_v_heads, len(context_len))](
        x,
        dt,
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
        x.stride(0),
        dt.stride(0),
        out.stride(0),
        states.stride(0),
        dt_least,
        dt_most,
        K_HEADS=num_k_heads,
        V_HEADS=num_v_heads,
        K=k_dim,
        V=v_dim,
        CHANNELS=channels,
        COLUMNS=_COLUMNS,
        num_warps=max(1, channels // _CHANNELS),
        enable_fp_fusion=True,
    )


def aot_cases() -> list[AotCase]:
    floats = ("x", "dt", "a_log", "dt_bias", "skip", "states", "out")
    ints, strides = (
        ("state_slots", "query_start", "context_len", "snapshot_slots", "snapshot_rows"),
        ("x_stride", "dt_stride", "out_stride", "slot_stride"),
    )
    signature = dict.fromkeys(floats, "*fp32") | dict.fromkeys(ints, "*i32") | dict.fromkeys(strides, "i32")
    signature |= dict.fromkeys(("dt_least", "dt_most"), "fp32")
    shape = {"K_HEADS": 8, "V_HEADS": 64, "K": 128, "V": 64, "CHANNELS": 128, "COLUMNS": _COLUMNS}
    return [
        AotCase(
            "selective_state.128x64",
            selective_state_kernel,
            signature,
            shape,
            num_warps=1,
            aligned=(*floats, *strides),
            max_registers=192,
            fp_fusion=True,
            max_shared=4 << 10,
            words=dict.fromkeys((80, 90, 100), ("LDG.E.128", "STG.E.128")),
        )
    ]
