"""selective_state: the state space of Mamba 2 over the rows of each sequence of a step; S is a head's state:

    S = g S + b (t v)^T;  out = c^T S + skip v
    t = softplus(dt + dt_bias), held between dt_least and dt_most;  g = exp(-exp(a_log) t)
    or, with slopes in place of dt, a_log, dt_bias and skip:  t = 1;  skip = 0;  g = exp(-slope)

x: [T, H V + 2 G K] float32: v of H heads of V channels, then b, then c of G heads of K, which heads share in runs; dt:
[T, H]; a_log, dt_bias, skip, slopes: [H]; out: [T, H V], apart from x; all float32, rows any distance apart. states:
see parts/recurrence.py; a sequence's is S [H, K, V].

A program has one head of one sequence, and COLUMNS of V, from its first row to its last, as in gated_delta_rule.py: one
shape of tile for one token and for many, so that a row's bits do not depend on the step that it is computed in. Padding
rows of out are not written.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import softplus
from albireo.backends.cuda.kernels.parts.recurrence import (
    SLOT_ARRAYS,
    keep_snapshot,
    load_row,
    load_state,
    rows_and_slot,
)
from albireo.backends.cuda.step import StateSlots

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
    slopes,
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

        keys = x + V_HEADS * V + head // (V_HEADS // K_HEADS) * K + channel
        values = x + head * V + column
        row = begin.to(tl.int64)
        if slopes is None:
            times = dt + head
            speed, bias, straight = tl.exp(tl.load(a_log + head)), tl.load(dt_bias + head), tl.load(skip + head)
            time = tl.load(times + row * dt_stride)
        b, c, v = load_row(keys, values, row * x_stride, is_channel, is_column, K_HEADS * K)
        to = out + row * out_stride + head * V + column
        for t in range(begin, end):
            # of the next row, or of the last one again
            row = tl.minimum(t + 1, end - 1).to(tl.int64)
            next_b, next_c, next_v = load_row(keys, values, row * x_stride, is_channel, is_column, K_HEADS * K)
            if slopes is None:
                next_time = tl.load(times + row * dt_stride)
                held = tl.minimum(tl.maximum(softplus(time + bias), dt_least), dt_most)
                state = tl.exp(-speed * held) * state + b[:, None] * (held * v)[None, :]
                tl.store(to, tl.sum(c[:, None] * state, axis=0) + straight * v, mask=is_column)
                time = next_time
            else:
                # read again for each row: a register more across the loop would be one too many on 10.0
                state = tl.exp(-tl.load(slopes + head)) * state + b[:, None] * v[None, :]
                tl.store(to, tl.sum(c[:, None] * state, axis=0), mask=is_column)
            to += out_stride
            if t + 1 == snapshot:
                keep_snapshot(at, state, is_state, slot, snapshot_slots + sequence, slot_stride)
            b, c, v = next_b, next_c, next_v
        tl.store(at, state, mask=is_state)


def selective_state(
    x: torch.Tensor,
    dt: torch.Tensor | None,
    a_log: torch.Tensor | None,
    dt_bias: torch.Tensor | None,
    skip: torch.Tensor | None,
    states: torch.Tensor,
    out: torch.Tensor,
    slots: StateSlots,
    num_k_heads: int,
    k_dim: int,
    v_dim: int,
    dt_least: float = 0.0,
    dt_most: float = float("inf"),
    slopes: torch.Tensor | None = None,
) -> None:
    """states: of the layer, rows as far apart as slots are. slopes: in place of dt and all vectors."""
    num_v_heads, channels = out.shape[1] // v_dim, triton.next_power_of_2(k_dim)
    selective_state_kernel[(triton.cdiv(v_dim, _COLUMNS), num_v_heads, len(slots.context_len))](
        x=x,
        dt=dt,
        a_log=a_log,
        dt_bias=dt_bias,
        skip=skip,
        slopes=slopes,
        states=states,
        **slots.arguments(),
        out=out,
        x_stride=x.stride(0),
        dt_stride=0 if dt is None else dt.stride(0),
        out_stride=out.stride(0),
        slot_stride=states.stride(0),
        dt_least=dt_least,
        dt_most=dt_most,
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
    """Of Mamba 2, and of MiniMax, whose heads have slopes."""
    common, told = ("x", "states", "out"), ("dt", "a_log", "dt_bias", "skip")
    strides = ("x_stride", "dt_stride", "out_stride", "slot_stride")
    numbers = dict.fromkeys(SLOT_ARRAYS, "*i32") | dict.fromkeys(strides, "i32")
    numbers |= dict.fromkeys(("dt_least", "dt_most"), "fp32")

    def case(label: str, given: tuple[str, ...], absent: tuple[str, ...], groups: int, v_dim: int) -> AotCase:
        shape: dict[str, Any] = {"K_HEADS": groups, "V_HEADS": 64, "K": 128, "V": v_dim, "CHANNELS": 128}
        return AotCase(
            f"selective_state.{label}",
            selective_state_kernel,
            dict.fromkeys((*common, *given), "*fp32") | numbers,
            {**shape, "COLUMNS": _COLUMNS, **dict.fromkeys(absent)},
            num_warps=1,
            aligned=(*common, *given, *strides),
            max_registers=192,
            fp_fusion=True,
            max_shared=4 << 10,
            words=dict.fromkeys((80, 90, 100), ("LDG.E.128", "STG.E.128")),
        )

    return [case("128x64", told, ("slopes",), 8, 64), case("128x128.slopes", ("slopes",), told, 64, 128)]
