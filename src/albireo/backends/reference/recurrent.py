"""Ops that keep a state of each sequence: causal_conv, gated_delta_rule, selective_state, selective_scan and
pool_rows, one sequence and one token at a time.

Called by interpret.py. In float64; what is kept is rounded to float32 behind every token, so that a prompt gives the
same numbers however it is cut into steps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.elementwise import sigmoid, softplus
from albireo.errors import InvariantError
from albireo.graph.attention_op import NOTHING_SEEN
from albireo.graph.op_numbers import L2_EPS

F64 = NDArray[np.float64]


def causal_conv(call: OpCall) -> tuple[Array, ...]:
    x, weight = call["x"], call["weight"].astype(np.float64)
    channels, width = weight.shape
    bias, is_silu = call.inputs.get("bias", 0.0), call.attrs.get("activation", "silu") == "silu"
    gate = None
    if call.attrs.get("gated"):
        of_x, gate, x = np.split(x, 3, axis=1)
        x = of_x * x
    out = np.zeros(x.shape, np.float32)
    for b in range(call.step.num_sequences):
        before = _state(call, b, (width - 1, channels))
        rows = slice(int(call.step.query_start[b]), int(call.step.query_start[b + 1]))
        window = np.concatenate([before, x[rows]])
        sums = sum(weight[:, j] * window[j : j + rows.stop - rows.start].astype(np.float64) for j in range(width))
        sums = np.asarray(sums + bias)
        sums = sums * sigmoid(sums) if is_silu else sums
        out[rows] = sums if gate is None else gate[rows] * sums
        _keep(call, b, window[-(width - 1) :])
        if rows_before := _snapshot_rows(call, b):
            _keep_snapshot(call, b, window[rows_before : rows_before + width - 1])
    return (out,)


def gated_delta_rule(call: OpCall) -> tuple[Array, ...]:
    attrs, x = call.attrs, call["x"].astype(np.float64)
    k_heads, v_heads, k_dim, v_dim = (attrs[name] for name in ("num_k_heads", "num_v_heads", "k_dim", "v_dim"))
    queries, keys, values = np.split(x, [k_heads * k_dim, 2 * k_heads * k_dim], axis=1)
    q, k = (_unit(part.reshape(-1, k_heads, k_dim)).repeat(v_heads // k_heads, axis=1) for part in (queries, keys))
    q, v = q / math.sqrt(k_dim), values.reshape(-1, v_heads, v_dim)
    gates = call["gates"].astype(np.float64)
    learned = sigmoid(gates[:, :v_heads]) * (2 if attrs.get("learns_twice") else 1)
    time = call["dt"].astype(np.float64) if "dt" in call.inputs else gates[:, v_heads:]
    time, speed = (time + call["dt_bias"]).reshape(len(x), v_heads, -1), np.exp(call["a_log"].astype(np.float64))
    if "most_decay" in attrs:
        decay = attrs["most_decay"] * sigmoid(speed[:, None] * time)
    else:
        decay = speed[:, None] * softplus(time)
    kept = np.exp(-decay)[..., None]  # of a head, or its channels
    out = np.zeros((len(x), v_heads, v_dim), np.float32)
    for b in range(call.step.num_sequences):
        state = _state(call, b, (v_heads, k_dim, v_dim))
        first = int(call.step.query_start[b])
        for t in range(first, int(call.step.query_start[b + 1])):
            wide = state.astype(np.float64) * kept[t]
            found = np.einsum("hkv,hk->hv", wide, k[t])
            wide += k[t, :, :, None] * (learned[t, :, None] * (v[t] - found))[:, None, :]
            out[t] = np.einsum("hkv,hk->hv", wide, q[t])
            state = wide.astype(np.float32)
            if t + 1 - first == _snapshot_rows(call, b):
                _keep_snapshot(call, b, state)
        _keep(call, b, state)
    return (out.reshape(len(x), -1),)


def selective_state(call: OpCall) -> tuple[Array, ...]:
    attrs, x = call.attrs, call["x"].astype(np.float64)
    k_heads, v_heads, k_dim, v_dim = (attrs[name] for name in ("num_k_heads", "num_v_heads", "k_dim", "v_dim"))
    values, of_b, of_c = np.split(x, [v_heads * v_dim, v_heads * v_dim + k_heads * k_dim], axis=1)
    b, c = (part.reshape(-1, k_heads, k_dim).repeat(v_heads // k_heads, axis=1) for part in (of_b, of_c))
    v = values.reshape(-1, v_heads, v_dim)
    if "slopes" in attrs:
        time, skip = np.ones((len(x), v_heads)), np.zeros(v_heads)
        kept = np.exp(-np.array(attrs["slopes"])) * time
    else:
        time, skip = softplus(call["dt"].astype(np.float64) + call["dt_bias"]), call["skip"]
        time = np.clip(time, attrs.get("dt_least", 0.0), attrs.get("dt_most", math.inf))
        kept = np.exp(-np.exp(call["a_log"].astype(np.float64)) * time)
    out = np.zeros((len(x), v_heads, v_dim), np.float32)
    for sequence in range(call.step.num_sequences):
        state = _state(call, sequence, (v_heads, k_dim, v_dim))
        first = int(call.step.query_start[sequence])
        for t in range(first, int(call.step.query_start[sequence + 1])):
            given = b[t, :, :, None] * (time[t, :, None] * v[t])[:, None, :]
            wide = state.astype(np.float64) * kept[t, :, None, None] + given
            out[t] = np.einsum("hkv,hk->hv", wide, c[t]) + skip[:, None] * v[t]
            state = wide.astype(np.float32)
            if t + 1 - first == _snapshot_rows(call, sequence):
                _keep_snapshot(call, sequence, state)
        _keep(call, sequence, state)
    return (out.reshape(len(x), -1),)


def selective_scan(call: OpCall) -> tuple[Array, ...]:
    x, speed = call["x"].astype(np.float64), np.exp(call["a_log"].astype(np.float64)).T
    b, c = np.split(call["bc"].astype(np.float64), 2, axis=1)
    time = softplus(call["dt"].astype(np.float64) + call["dt_bias"])
    out = np.zeros(x.shape, np.float32)
    for sequence in range(call.step.num_sequences):
        state = _state(call, sequence, speed.shape)
        first = int(call.step.query_start[sequence])
        for t in range(first, int(call.step.query_start[sequence + 1])):
            wide = state.astype(np.float64) * np.exp(-speed * time[t]) + np.outer(b[t], time[t] * x[t])
            out[t] = c[t] @ wide + call["skip"] * x[t]
            state = wide.astype(np.float32)
            if t + 1 - first == _snapshot_rows(call, sequence):
                _keep_snapshot(call, sequence, state)
        _keep(call, sequence, state)
    return (out,)


#: Largest gate, sum of powers and sum of products of no rows.
_NO_ROWS = np.array([[NOTHING_SEEN], [0.0], [0.0]], np.float32)


def pool_rows(call: OpCall) -> tuple[Array, ...]:
    every, series, step = call.attrs["every"], call.attrs["series"], call.step
    shape = (len(call["x"]), series, -1)
    x = call["x"].astype(np.float64).reshape(shape)
    gates = call["gates"].astype(np.float64).reshape(shape) if "gates" in call.inputs else np.zeros(x.shape)
    places = call["places"].astype(np.float64) if "places" in call.inputs else np.zeros((every, series * x.shape[2]))
    places = places.reshape(every, series, -1)
    out = np.zeros((len(x), x.shape[2]), np.float32)
    for sequence in range(step.num_sequences):
        state = _state(call, sequence, (3 * (1 if series == 1 else 3), x.shape[2])).reshape(-1, 3, x.shape[2])
        first = int(step.query_start[sequence])
        for t in range(first, int(step.query_start[sequence + 1])):
            window, place = divmod(int(step.positions[t]), every)
            state = state.copy()
            if place == 0:
                nothing = np.broadcast_to(_NO_ROWS, state[0].shape)
                state[2:] = state[1:2] if window else nothing
                state[:2] = nothing
            for each, channels in enumerate(range(series - 1, -1, -1)):
                state[each] = _with_row(state[each], x[t, channels], gates[t, channels] + places[place, channels])
            if place + 1 == every:
                whole = state[::2].astype(np.float64)
                by = np.exp(whole[:, 0] - whole[:, 0].max(axis=0))
                out[t] = (by * whole[:, 2]).sum(axis=0) / (by * whole[:, 1]).sum(axis=0)
            if t + 1 - first == _snapshot_rows(call, sequence):
                _keep_snapshot(call, sequence, state.reshape(-1, x.shape[2]))
        _keep(call, sequence, state.reshape(-1, x.shape[2]))
    return (out,)


def _with_row(mean: Array, x: F64, gate: F64) -> Array:
    """mean: [3, D] of the rows before, as _NO_ROWS."""
    most = np.maximum(mean[0].astype(np.float64), gate)
    kept, given = np.exp(mean[0] - most), np.exp(gate - most)
    return np.stack([most, mean[1] * kept + given, mean[2] * kept + given * x]).astype(np.float32)


def _unit(x: F64) -> F64:
    return np.asarray(x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + L2_EPS))


def _state(call: OpCall, b: int, shape: tuple[int, ...]) -> Array:
    """What sequence b of the step comes with; zeros at its first token."""
    step = call.step
    if step.state_slots is None:
        raise InvariantError("the step says no slots for what sequences keep")
    if step.query_start[b + 1] - step.query_start[b] == step.context_len[b]:
        return np.zeros(shape, np.float32)
    key = call.attrs["state"], int(step.state_slots[b])
    if key not in call.states:
        raise InvariantError(f"nothing is kept in slot {key[1]} of a sequence that goes on")
    return call.states[key]


def _keep(call: OpCall, b: int, state: Array) -> None:
    assert call.step.state_slots is not None, "looked at before"
    call.states[call.attrs["state"], int(call.step.state_slots[b])] = state


def _snapshot_rows(call: OpCall, b: int) -> int:
    rows = call.step.snapshot_rows
    return 0 if rows is None else int(rows[b])


def _keep_snapshot(call: OpCall, b: int, state: Array) -> None:
    assert call.step.snapshot_slots is not None, "rows say that one is taken"
    call.states[call.attrs["state"], int(call.step.snapshot_slots[b])] = state
