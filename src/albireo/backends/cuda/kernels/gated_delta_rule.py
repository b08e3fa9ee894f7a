"""gated_delta_rule: the recurrence over the rows of each sequence of a step; of each head of values, S being its state:

    S = g S;  S = S + k (b (v - k^T S))^T;  out = q^T S
    g = exp(-exp(a_log) softplus(gates[H + h] + dt_bias)), b = sigmoid(gates[h]), or twice that
    k, q: of the head's key and query divided by sqrt(sum of squares + 1e-6), q also by sqrt(K)
    most_decay: g = exp(-most_decay sigmoid(exp(a_log) t)) of the t whose softplus is taken else
    times: g is a number of each row of S, exp(-exp(a_log) softplus(times[h K + i] + dt_bias[h K + i]))

x: [T, 2 G K + H V] float32: queries and keys of G heads of K channels, values of H heads of V, which share keys in
runs; gates: [T, 2 H]; a_log, dt_bias: [H], or gates: [T, H], times: [T, H K], dt_bias: [H K]; out: [T, H V], apart from
x; all float32, rows any distance apart. states: see parts/recurrence.py; a sequence's is S [H, K, V].

A program has one head of one sequence, and COLUMNS of V, which do not depend on others: they stay in registers from its
first row to its last, and are read and written once. What a row needs beside is loaded while those before it are
computed. One shape of tile for one token and for many, so that a sum over K is one tree: a row's bits do not depend on
the step that it is computed in. Padding rows of out are not written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import sigmoid, softplus
from albireo.backends.cuda.kernels.parts.recurrence import (
    SLOT_ARRAYS,
    keep_snapshot,
    load_row,
    load_state,
    rows_and_slot,
)
from albireo.backends.cuda.step import StateSlots
from albireo.graph.op_numbers import L2_EPS

#: Of V, of a program: rows of 64 bytes of each channel of K, in 64 registers of a thread.
_COLUMNS = 16
#: Channels of K that a warp has.
_CHANNELS = 128


@triton.jit
def gated_delta_rule_kernel(
    x,
    gates,
    times,
    a_log,
    dt_bias,
    states,
    state_slots,
    query_start,
    context_len,
    snapshot_slots,
    snapshot_rows,
    out,
    x_stride,
    gates_stride,
    times_stride,
    out_stride,
    slot_stride,
    K_HEADS: tl.constexpr,
    V_HEADS: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EPS: tl.constexpr,
    TWICE: tl.constexpr,
    OF_CHANNELS: tl.constexpr,
    MOST: tl.constexpr,
):
    head, sequence = tl.program_id(1), tl.program_id(2)
    begin, end, context, slot, num_before = rows_and_slot(
        sequence, query_start, context_len, state_slots, snapshot_rows
    )
    snapshot = begin + num_before  # of 0 rows it is where t + 1 never is
    if begin < end:
        channel, column = tl.arange(0, CHANNELS), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        is_channel, is_column = channel < K, column < V
        is_state = is_channel[:, None] & is_column[None, :]
        of_head = states + slot.to(tl.int64) * slot_stride + head * (K * V)
        at, state = load_state(of_head, end - begin < context, channel, column, K, V)

        queries = x + head // (V_HEADS // K_HEADS) * K + channel
        values = x + 2 * K_HEADS * K + head * V + column
        of_gates = gates + head
        speed = tl.exp(tl.load(a_log + head))
        if OF_CHANNELS:
            of_times = times + head * K + channel
            bias = tl.load(dt_bias + head * K + channel, mask=is_channel, other=0.0)
        else:
            of_times = gates + head + V_HEADS
            bias = tl.load(dt_bias + head)
        row = begin.to(tl.int64)
        q, k, v = load_row(queries, values, row * x_stride, is_channel, is_column, K_HEADS * K)
        rate = tl.load(of_gates + row * gates_stride)
        decay = _load_time(of_times, row, gates_stride, times_stride, is_channel, OF_CHANNELS)
        to = out + row * out_stride + head * V + column
        for t in range(begin, end):
            # of the next row, or of the last one again
            row = tl.minimum(t + 1, end - 1).to(tl.int64)
            next_q, next_k, next_v = load_row(queries, values, row * x_stride, is_channel, is_column, K_HEADS * K)
            next_rate = tl.load(of_gates + row * gates_stride)
            next_decay = _load_time(of_times, row, gates_stride, times_stride, is_channel, OF_CHANNELS)

            learned = sigmoid(rate)
            if MOST is None:
                kept = tl.exp(-speed * softplus(decay + bias))
            else:
                kept = tl.exp(-MOST * sigmoid(speed * (decay + bias)))
            if TWICE:
                learned *= 2
            k = _unit(k, 1.0, EPS)[:, None]
            q = _unit(q, K * 1.0, EPS)[:, None]
            if OF_CHANNELS:
                left = kept[:, None]
                delta = learned * (v - tl.sum(k * left * state, axis=0))
                state = left * state + k * delta[None, :]
            else:
                delta = learned * (v - kept * tl.sum(k * state, axis=0))
                state = kept * state + k * delta[None, :]
            tl.store(to, tl.sum(q * state, axis=0), mask=is_column)
            to += out_stride
            if t + 1 == snapshot:
                keep_snapshot(at, state, is_state, slot, snapshot_slots + sequence, slot_stride)
            q, k, v, rate, decay = next_q, next_k, next_v, next_rate, next_decay
        tl.store(at, state, mask=is_state)


@triton.jit
def _load_time(of_times, row, gates_stride, times_stride, is_channel, OF_CHANNELS: tl.constexpr):
    """How long a head's row counts, or each channel of it."""
    if OF_CHANNELS:
        return tl.load(of_times + row * times_stride, mask=is_channel, other=0.0)
    else:
        return tl.load(of_times + row * gates_stride)


@triton.jit
def _unit(x, size, EPS: tl.constexpr):
    """x / sqrt(sum of squares + EPS) / sqrt(size)."""
    return x * tl.rsqrt((tl.sum(x * x, axis=0) + EPS) * size)


def gated_delta_rule(
    x: torch.Tensor,
    gates: torch.Tensor,
    a_log: torch.Tensor,
    dt_bias: torch.Tensor,
    states: torch.Tensor,
    out: torch.Tensor,
    slots: StateSlots,
    num_k_heads: int,
    k_dim: int,
    v_dim: int,
    learns_twice: bool = False,
    most_decay: float | None = None,
    times: torch.Tensor | None = None,
) -> None:
    """states: of the layer, rows as far apart as slots are. times: where rates are of channels."""
    num_v_heads, channels = len(a_log), triton.next_power_of_2(k_dim)
    gated_delta_rule_kernel[(triton.cdiv(v_dim, _COLUMNS), num_v_heads, len(slots.context_len))](
        x=x,
        gates=gates,
        times=gates if times is None else times,
        a_log=a_log,
        dt_bias=dt_bias,
        states=states,
        **slots.arguments(),
        out=out,
        x_stride=x.stride(0),
        gates_stride=gates.stride(0),
        times_stride=gates.stride(0) if times is None else times.stride(0),
        out_stride=out.stride(0),
        slot_stride=states.stride(0),
        K_HEADS=num_k_heads,
        V_HEADS=num_v_heads,
        K=k_dim,
        V=v_dim,
        CHANNELS=channels,
        COLUMNS=_COLUMNS,
        EPS=L2_EPS,
        TWICE=learns_twice,
        OF_CHANNELS=times is not None,
        MOST=most_decay,
        num_warps=max(1, channels // _CHANNELS),
        enable_fp_fusion=True,
    )


def aot_cases() -> list[AotCase]:
    floats = ("x", "gates", "times", "a_log", "dt_bias", "states", "out")
    strides = ("x_stride", "gates_stride", "times_stride", "out_stride", "slot_stride")
    signature = dict.fromkeys(floats, "*fp32") | dict.fromkeys(SLOT_ARRAYS, "*i32") | dict.fromkeys(strides, "i32")
    shape: dict[str, object] = {
        "K_HEADS": 16,
        "V_HEADS": 32,
        "K": 128,
        "V": 128,
        "CHANNELS": 128,
        "COLUMNS": _COLUMNS,
        "EPS": L2_EPS,
    }
    shape |= {"TWICE": False, "MOST": None}
    return [
        AotCase(
            f"gated_delta_rule.{name}128x128",
            gated_delta_rule_kernel,
            signature,
            shape | {"OF_CHANNELS": of_channels},
            num_warps=1,
            aligned=(*floats, *strides),
            max_registers=232 if of_channels else 192,  # a number of each channel more, and of the next row's
            fp_fusion=True,
            max_shared=4 << 10,
            words=dict.fromkeys((80, 90, 100), ("LDG.E.128", "STG.E.128")),
        )
        for name, of_channels in (("", False), ("channels.", True))
    ]
