"""How far a float32 attention, or one of two, may be from the reference's: sums, exponentials, and probabilities of 16
bits.

Called by bounds.py. Computed row by row from the queries and the cache at hand. Does not know kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.attention import (
    added_by_columns,
    among,
    by_distance,
    by_slope,
    of_rows,
    visible,
)
from albireo.backends.reference.call import OpCall
from albireo.dtypes import KV_CODES
from albireo.graph.attention_op import NOTHING_SEEN, head_width, lists_of, result_width

F64 = NDArray[np.float64]

_U = 2.0**-24
#: Relative error of a float32 exponential, its polynomial and its rounding, above and below the fraction line.
_EXP = 4e-7
#: Of one whose result is rounded to 16 bits next.
_ROUGH_EXP = 1.05e-4
#: Roundings of tanh and of what is around it in a soft cap.
_CAP_ROUNDINGS = 8
#: What matrix units of a GPU multiply, where a cache's type alone does not say it: their sums of probabilities are sums
#: of rounded ones, too.
UNITS_OF_BFLOAT16, UNITS_OF_FLOAT16 = "bfloat16 in matrix units", "float16 in matrix units"
#: What is multiplied -> unit roundoff of the type that probabilities are rounded to before they meet values.
_ROUNDOFF = {"bfloat16": 2.0**-8, "fp8": 2.0**-8, UNITS_OF_BFLOAT16: 2.0**-8, UNITS_OF_FLOAT16: 2.0**-11}
#: Half of what lies between the numbers of float16 below its normal ones.
_FLOAT16_FLOOR = 2.0**-25
#: Where whole numbers stand for probabilities or queries, the largest of them; and positions that share a scale.
_WHOLE, _TILE = 32767, 64


def chain_error(terms: int, magnitude: F64) -> F64:
    """What a float32 sum of so many products may be off by: 4 sqrt(n) u times the sum of their absolute values.

    Source: Higham & Mary 2019, probabilistic rounding analysis; the certain bound has n for sqrt(n).
    """
    return np.asarray(4 * np.sqrt(terms + 4) * _U * magnitude, np.float64)


def attention_error(call: OpCall) -> F64:
    """Of the shape of the result. A kernel of 16-bit numbers may round each probability to them.

    What a kernel rounds follows from the type of the cache, unless the cache says another type: products.
    """
    attrs, step, kv = call.attrs, call.step, call["kv"]
    if "rows" in call.inputs:
        return np.asarray(of_rows(call, attention_error)[0], np.float64)
    q = np.asarray(call["q"]).reshape(step.num_tokens, attrs["num_heads"], attrs["head_dim"]).astype(np.float64)
    width = result_width(attrs)
    out, products = np.zeros((*q.shape[:2], head_width(attrs))), getattr(kv, "products", kv.dtype)
    for b in range(step.num_sequences):
        rows = slice(int(step.query_start[b]), int(step.query_start[b + 1]))
        context = int(step.context_len[b])
        every = attrs.get("every", 1)
        k, v = (a.astype(np.float64) for a in kv.read(attrs["layer"], step.block_table[b], context, every))
        context //= every
        seen = visible(step.positions[rows], context, attrs)
        lists = []
        if "chosen" in call.inputs:
            whole = np.asarray(call["chosen"])[rows]
            lists = [among(each, context) for each in np.split(whole, lists_of(attrs), axis=1)]
        for head in range(attrs["num_heads"]):
            group = head * attrs["num_kv_heads"] // attrs["num_heads"]
            if lists:
                seen = lists[group if len(lists) > 1 else 0]
            sink = float(call["sinks"][head]) if "sinks" in call.inputs else -np.inf
            shift, first = np.zeros(seen.shape), np.zeros(seen.shape)
            if "slopes" in attrs:
                shift = by_slope(step.positions[rows], context, attrs["slopes"][head])
            if "from_rows" in call.inputs:
                from_keys = np.asarray(call["from_keys"])[rows] if "from_keys" in call.inputs else None
                of_rows_here = np.asarray(call["from_rows"])[rows]
                first = added_by_columns(of_rows_here, from_keys, attrs, step.positions[rows], context)[head]
            if "distances" in call.inputs:
                shift = by_distance(step.positions[rows], context, np.asarray(call["distances"])[:, head])
            out[rows, head] = _one_head(
                q[rows, head], k[:, group], v[:, group, :width], seen, attrs, products, sink, first, shift
            )
    return out.reshape(step.num_tokens, -1)


def join_sums_error(call: OpCall, errors: Any) -> F64:
    """Of the result, [T, H * W]: what each part is off by, and the weights of parts, whose exponents are."""
    heads = call.attrs["num_heads"]
    shape = (len(call["x"]), heads, -1)
    sink = (call["sinks"].astype(np.float64) * np.log2(np.e))[:, None]
    parts = [np.asarray(call[role], np.float64).reshape(shape) for role in ("x", "y")]
    off = [np.broadcast_to(errors[role], call[role].shape).reshape(shape) for role in ("x", "y")]
    most = np.maximum(sink, np.maximum(*(each[..., -2:-1] for each in parts)))
    by = [np.exp2(each[..., -2:-1] - most) for each in parts]
    whole = sum(power * each[..., -1:] for power, each in zip(by, parts, strict=True)) + np.exp2(sink - most)
    found, of_whole = np.zeros(1), np.zeros(1)
    for power, each, error in zip(by, parts, off, strict=True):
        moved = np.log(2) * error[..., -2:-1] + _EXP + 4 * _U * np.abs(np.maximum(each[..., -2:-1], -126) - most)
        found = found + power / whole * (error[..., :-2] + moved * np.abs(each[..., :-2]))
        of_whole = of_whole + power / whole * (error[..., -1:] + moved * each[..., -1:])
    of_whole = of_whole + np.exp2(sink - most) / whole * (_EXP + 4 * _U * np.abs(sink - most)) + 8 * _U
    size = sum(power / whole * np.abs(each[..., :-2]) for power, each in zip(by, parts, strict=True))
    return np.asarray((found + of_whole * size).reshape(len(call["x"]), -1), np.float64)


def _one_head(
    q: F64, k: F64, v: F64, seen: NDArray[np.bool_], attrs: Any, dtype: str, sink: float, first: F64, shift: F64
) -> F64:
    """q: [n, D]; k: [C, D]; v: [C, W]; first, shift: [n, C] are added to scores before and behind the cap -> [n, W], or
    of sums [n, W + 2]."""
    if not len(k):
        return np.zeros((len(q), head_width(attrs)))
    scores = q @ k.T * attrs["scale"] + first
    error = chain_error(q.shape[1], np.abs(q) @ np.abs(k).T * abs(attrs["scale"]))
    if dtype == "int8":
        # queries are rounded to whole numbers, of which so many are the largest
        step = np.abs(q).max(axis=-1, keepdims=True) / min(_WHOLE, 2**24 / q.shape[1])
        error = error + step / 2 * np.abs(k).sum(axis=-1) * abs(attrs["scale"])
    if attrs["softcap"]:
        scores = attrs["softcap"] * np.tanh(scores / attrs["softcap"])
        error = error + _CAP_ROUNDINGS * _U * attrs["softcap"]
    scores = scores + shift
    most = np.maximum(np.where(seen, scores, -np.inf).max(axis=-1, keepdims=True), max(sink, NOTHING_SEEN))
    p = np.exp(np.where(seen, scores, -np.inf) - most)
    if not attrs.get("sums", False):
        p /= p.sum(axis=-1, keepdims=True) + np.exp(sink - most)
    size = np.where(seen, np.abs(scores), 0).max(axis=-1, keepdims=True)
    if np.isfinite(sink):
        size = np.maximum(size, abs(sink))
    relative = 2 * (np.where(seen, error, 0).max(axis=-1, keepdims=True) + 4 * _U * size + _EXP)
    magnitude = p @ np.abs(v)
    total = relative * magnitude + chain_error(len(k), magnitude)
    if dtype == "int8":
        total += _whole_weights(p, v) + 2 * _ROUGH_EXP * magnitude
    elif dtype in _ROUNDOFF:
        total += _rounded_weights(p, v, dtype)
        if dtype == UNITS_OF_FLOAT16:
            total += 2 * _FLOAT16_FLOOR * (seen @ np.abs(v))
    if attrs.get("sums", False):
        whole, moved = p.sum(axis=-1, keepdims=True), np.where(seen, error, 0).max(axis=-1, keepdims=True)
        of_most = np.log2(np.e) * moved + 4 * _U * np.abs(np.where(whole > 0, most, 0))
        # exponents are from another largest one, by which all powers differ
        total = total + np.log(2) * of_most * magnitude
        of_whole = relative * whole + chain_error(len(k), whole) + np.log(2) * of_most * whole
        if dtype in _ROUNDOFF or dtype == "int8":
            of_whole = of_whole + 2 * _ROUGH_EXP * whole
        if dtype in (UNITS_OF_BFLOAT16, UNITS_OF_FLOAT16):
            of_whole = of_whole + _ROUNDOFF[dtype] * np.minimum(whole, 4 * np.sqrt((p**2).sum(axis=-1, keepdims=True)))
        total = np.concatenate([total, of_most, of_whole], axis=-1)
    return np.asarray(total, np.float64)


def _rounded_weights(p: F64, v: F64, dtype: str) -> F64:
    """p: [n, C]; v: [C, D] -> [n, D]. Each probability has a rounding of its own, and they are independent."""
    moved = np.minimum(p @ np.abs(v), 4 * np.sqrt(p**2 @ v**2))
    if dtype in (UNITS_OF_BFLOAT16, UNITS_OF_FLOAT16):
        moved += np.abs(p @ v) * np.minimum(1, 4 * np.sqrt((p**2).sum(axis=-1, keepdims=True)))
    return np.asarray(moved * _ROUNDOFF[dtype], np.float64)


def _whole_weights(p: F64, v: F64) -> F64:
    """p: [n, C]; v: [C, D] -> [n, D]. Probabilities times the scales of values become whole numbers, each rounded by
    itself, of which the largest stands for the largest of a tile.
    """
    error, scales = np.zeros((len(p), v.shape[1])), np.abs(v).max(axis=-1) / KV_CODES["int8"]
    for start in range(0, len(v), _TILE):
        tile = slice(start, start + _TILE)
        step = (p[:, tile] * scales[tile]).max(axis=-1, keepdims=True) / _WHOLE
        codes = np.where(scales[tile, None] > 0, v[tile] / np.maximum(scales[tile, None], _U**4), 0.0)
        worst, likely = np.abs(codes).sum(axis=0) / 2, 4 / np.sqrt(12) * np.sqrt((codes**2).sum(axis=0))
        error += step * np.minimum(worst, likely)
    return error
