"""How far kernels of add_parts, match_length, cut and balance may be from the reference.

Called by bounds.py. Sums over a row are chains of a sixteenth of it and a tree of 16.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import OpCall
from albireo.backends.reference.streams import balance
from albireo.verify.rounding_bound import FLUSHED, as_rows

F64 = NDArray[np.float64]
_U = 2.0**-24


def add_parts_error(call: OpCall, errors: Any) -> F64:
    """Of out, [T, parts * W]; errors: of each role."""
    parts, first = call.attrs["num_parts"], call.attrs["first"]
    x, y = (np.abs(call[role].astype(np.float64)) for role in ("x", "y"))
    shape = (len(x), parts, x.shape[1] // parts)
    given = (len(x), -1, shape[2])
    y, of_y = y.reshape(given), as_rows(errors["y"], y).reshape(given)
    coefs, of_coefs = np.full((len(x), parts, y.shape[1]), float(call.attrs["plus"])), np.zeros(1)
    if "coefs" in call.inputs:
        coefs = coefs + call["coefs"].reshape(coefs.shape)
        of_coefs = as_rows(errors["coefs"], call["coefs"]).reshape(coefs.shape)
    coefs, of_coefs = np.abs(coefs[:, first:]), np.broadcast_to(of_coefs, coefs.shape)[:, first:] + _U
    found = as_rows(errors["x"], x).reshape(shape).copy()
    terms = np.einsum("tji,tie->tje", coefs, y)
    own = 2 * (y.shape[1] + 2) * _U * (x.reshape(shape)[:, first:] + terms) + FLUSHED
    found[:, first:] += np.einsum("tji,tie->tje", coefs, of_y) + np.einsum("tji,tie->tje", of_coefs, y + of_y) + own
    return np.asarray(found.reshape(x.shape), np.float64)


def match_length_error(call: OpCall, errors: Any) -> F64:
    """A root of a mean of squares moves by no more than that of what its numbers are off by."""
    x, y = (call[role].astype(np.float64) for role in ("x", "y"))
    of_x, of_y = as_rows(errors["x"], x), as_rows(errors["y"], y)
    own, wanted = np.maximum(_root(x), np.sqrt(call.attrs["least"])), _root(y)
    by = wanted / own
    of_by = (_root(of_y) + by * _root(of_x)) / own + by * _of_sums(x)
    return np.asarray(by * of_x + (np.abs(x) + of_x) * of_by + 2 * _U * by * np.abs(x) + FLUSHED, np.float64)


def cut_error(call: OpCall, errors: Any) -> F64:
    """A mean moves by the mean of what its numbers are off by, a standard deviation by the root of their squares'."""
    x, far = call["x"].astype(np.float64), abs(call.attrs["deviations"])
    of_x = as_rows(errors["x"], x)
    sizes = np.abs(x).mean(axis=-1, keepdims=True) + far * x.std(axis=-1, keepdims=True)
    moved = of_x.mean(axis=-1, keepdims=True) + far * _root(of_x) + (1 + far) * _of_sums(x) * (sizes + _root(x))
    return np.asarray(of_x + moved + 2 * _U * (np.abs(x) + sizes) + FLUSHED, np.float64)


def balance_error(call: OpCall, errors: Any) -> F64:
    """What logarithms of a matrix are off by goes through rounds as through its potentials, which a round makes nearer
    to each other by Birkhoff's factor: the sum of all rounds is bounded by that, or by how many they are.

    Source: Franklin and Lorenz 1989, On the scaling of multidimensional matrices.
    """
    x = call["x"].astype(np.float64)
    count, rounds = math.isqrt(x.shape[1]), call.attrs["rounds"]
    (value,) = balance(call)
    logs = x.reshape(len(x), count, count)
    ratios = logs[:, :, None, :] - logs[:, None, :, :]
    widest = (ratios.max(axis=-1) - ratios.min(axis=-1)).max(axis=(1, 2))
    times = 2 + 2 * np.minimum(2.0 * rounds, 1 / np.maximum(1 - np.tanh(widest / 4), 1e-9))
    size = np.minimum((logs.max(axis=1, keepdims=True) - logs).max(axis=(1, 2)), 90)
    of_x = as_rows(errors["x"], x).max(axis=1)
    off = 2 * of_x + (16 + 4 * size) * _U + 2 * rounds * (count + 4) * _U
    return np.asarray(np.abs(value) * (times * off)[:, None] + FLUSHED, np.float64)


def _root(x: F64) -> F64:
    return np.asarray(np.sqrt(np.mean(x**2, axis=-1, keepdims=True)), np.float64)


def _of_sums(x: F64) -> float:
    return float(x.shape[-1] / 16 + 16) * _U
