"""Calls that keep states of sequences -> launches, as bind.py has them of all other families."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from albireo.backends.cuda.call_args import CallArgs, Launch
from albireo.backends.cuda.kernels.causal_conv import causal_conv
from albireo.backends.cuda.kernels.gated_delta_rule import gated_delta_rule
from albireo.backends.cuda.kernels.pool_rows import pool_rows
from albireo.backends.cuda.kernels.selective_scan import selective_scan
from albireo.backends.cuda.kernels.selective_state import selective_state


def _causal_conv(args: CallArgs) -> Launch:
    x, weight, out = args.buffer("x"), args.matrix().codes, args.buffer("out")
    states, bias = args.memory.states.of(args.number("state")), args.optional_vector("bias")
    activation, gated = args.call.attrs.get("activation", "silu"), bool(args.call.attrs.get("gated", False))
    return lambda step: causal_conv(
        x(step),
        weight,
        states,
        out(step),
        step.for_states,
        bias=bias,
        activation=activation,
        gated=gated,
    )


def _gated_delta_rule(args: CallArgs) -> Launch:
    x, gates, out = args.buffer("x"), args.buffer("gates"), args.buffer("out")
    a_log, dt_bias, states = args.vector("a_log"), args.vector("dt_bias"), args.memory.states.of(args.number("state"))
    heads, k_dim, v_dim = (args.number(name) for name in ("num_k_heads", "k_dim", "v_dim"))
    learns_twice = bool(args.call.attrs.get("learns_twice", False))
    times = args.buffer("dt") if "dt" in args.call.args else None
    return lambda step: gated_delta_rule(
        x(step),
        gates(step),
        a_log,
        dt_bias,
        states,
        out(step),
        step.for_states,
        num_k_heads=heads,
        k_dim=k_dim,
        v_dim=v_dim,
        learns_twice=learns_twice,
        most_decay=args.call.attrs.get("most_decay"),
        times=None if times is None else times(step),
    )


def _selective_state(args: CallArgs) -> Launch:
    x, out, attrs = args.buffer("x"), args.buffer("out"), args.call.attrs
    dt, slopes = args.buffer("dt") if "dt" in args.call.args else None, None
    a_log, dt_bias, skip = (args.optional_vector(name) for name in ("a_log", "dt_bias", "skip"))
    if "slopes" in attrs:
        slopes = torch.tensor(attrs["slopes"], dtype=torch.float32, device=args.memory.kv.device)
    states, heads, k_dim, v_dim = (
        args.memory.states.of(args.number("state")),
        *(args.number(name) for name in ("num_k_heads", "k_dim", "v_dim")),
    )
    least, most = float(attrs.get("dt_least", 0.0)), float(attrs.get("dt_most", math.inf))
    return lambda step: selective_state(
        x(step),
        None if dt is None else dt(step),
        a_log,
        dt_bias,
        skip,
        states,
        out(step),
        step.for_states,
        num_k_heads=heads,
        k_dim=k_dim,
        v_dim=v_dim,
        dt_least=least,
        dt_most=most,
        slopes=slopes,
    )


def _selective_scan(args: CallArgs) -> Launch:
    x, dt, bc, out = (args.buffer(name) for name in ("x", "dt", "bc", "out"))
    a_log, dt_bias, skip = args.matrix("a_log").codes, args.vector("dt_bias"), args.vector("skip")
    states = args.memory.states.of(args.number("state"))
    return lambda step: selective_scan(
        x(step), dt(step), bc(step), a_log, dt_bias, skip, states, out(step), step.for_states
    )


def _pool_rows(args: CallArgs) -> Launch:
    x, gates, out = args.buffer("x"), args.optional_buffer("gates"), args.buffer("out")
    places = args.matrix("places").codes if "places" in args.call.args else None
    states, (every, series) = args.memory.states.of(args.number("state")), (args.number(n) for n in ("every", "series"))
    return lambda step: pool_rows(x(step), gates(step), places, states, out(step), step.for_states, every, series)


#: Families of graph.op_numbers.RECURRENT.
OF_STATES: Mapping[str, Callable[[CallArgs], Launch]] = {
    "causal_conv": _causal_conv,
    "gated_delta_rule": _gated_delta_rule,
    "selective_state": _selective_state,
    "selective_scan": _selective_scan,
    "pool_rows": _pool_rows,
}
