"""Ops of residual streams that lie side by side, and of rows looked at as a whole: add_parts, match_length, cut,
balance.

Called by interpret.py. All of them go through float64, and are rounded once.
"""

from __future__ import annotations

import math

import numpy as np

from albireo.backends.reference.call import Array, OpCall


def add_parts(call: OpCall) -> tuple[Array, ...]:
    parts, first = call.attrs["num_parts"], call.attrs["first"]
    x = call["x"].astype(np.float64).reshape(len(call["x"]), parts, -1)
    y = call["y"].astype(np.float64).reshape(len(x), -1, x.shape[2])
    coefs = np.full((len(x), parts, y.shape[1]), call.attrs["plus"], np.float64)
    if "coefs" in call.inputs:
        coefs += call["coefs"].reshape(coefs.shape)
    x[:, first:] += np.einsum("tji,tie->tje", coefs[:, first:], y)
    return (x.reshape(len(x), parts * x.shape[2]).astype(np.float32),)


def match_length(call: OpCall) -> tuple[Array, ...]:
    own, wanted = (np.mean(call[role].astype(np.float64) ** 2, axis=-1, keepdims=True) for role in ("x", "y"))
    return ((call["x"] * np.sqrt(wanted / np.maximum(own, call.attrs["least"]))).astype(np.float32),)


def cut(call: OpCall) -> tuple[Array, ...]:
    x = call["x"].astype(np.float64)
    limit = x.mean(axis=-1, keepdims=True) + call.attrs["deviations"] * x.std(axis=-1, keepdims=True)
    return (np.maximum(x - limit, 0.0).astype(np.float32),)


def balance(call: OpCall) -> tuple[Array, ...]:
    x, eps = call["x"].astype(np.float64), call.attrs["eps"]
    count = math.isqrt(x.shape[1])
    m = x.reshape(len(x), count, count)
    m = np.exp(m - m.max(axis=1, keepdims=True))
    m = m / m.sum(axis=1, keepdims=True) + eps
    m = m / (m.sum(axis=2, keepdims=True) + eps)
    for _ in range(call.attrs["rounds"] - 1):
        m = m / (m.sum(axis=1, keepdims=True) + eps)
        m = m / (m.sum(axis=2, keepdims=True) + eps)
    return (m.reshape(x.shape).astype(np.float32),)
