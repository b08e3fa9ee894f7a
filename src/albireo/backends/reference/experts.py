"""Mixture of experts: which experts a token has and how much each counts, their linears, and the sum of what they give.

Called by interpret.py, and by verify where routes are given. In float64, rounded once to float32; the choice compares
the float32 logits themselves, so that it is the same on every backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.elementwise import sigmoid, softplus
from albireo.errors import InvariantError
from albireo.graph.op_numbers import LEAST_SCORES


def route(call: OpCall) -> tuple[Array, ...]:
    if not call.attrs.get("shared", False):
        return _chosen(call, call.attrs["top_k"])
    ids, weights = _chosen(call, call.attrs["top_k"] - 1)
    shared = np.full((len(ids), 1), call["x"].shape[1], np.int32)
    return np.concatenate([ids, shared], axis=1), np.concatenate([weights, shared_weight(call, len(ids))], axis=1)


def shared_weight(call: OpCall, rows: int) -> Array:
    """[rows, 1] float32 what the expert counts that every row has."""
    if "gate" not in call.inputs:
        return np.ones((rows, 1), np.float32)
    return np.asarray(sigmoid(call["gate"].astype(np.float64)), np.float32)


def _chosen(call: OpCall, count: int) -> tuple[Array, ...]:
    logits, attrs = call["x"], call.attrs
    if "chosen" in call.inputs:
        ids = given_ids(call["chosen"], logits.shape[1])
        return ids, route_weights(logits, ids, attrs, call.inputs.get("gain"))
    merits = route_merits(logits, attrs, call["bias"]) if "bias" in call.inputs else logits
    if "num_groups" in attrs:
        kept = _best_first(group_worths(merits, attrs))[:, : attrs["kept_groups"]]
        groups = np.arange(logits.shape[1]) // (logits.shape[1] // attrs["num_groups"])
        is_open = (groups[None, None, :] == kept[:, :, None]).any(axis=1)
        # behind all that may be chosen, whatever those are
        order = np.lexsort((-merits, ~np.isnan(merits), ~is_open), axis=-1)
    else:
        order = _best_first(merits)
    ids = order[:, :count].astype(np.int32)
    return ids, route_weights(logits, ids, attrs, call["gain"] if "gain" in call.inputs else None)


def given_ids(chosen: Array, count: int) -> Array:
    """[T, k] int32 of numbers of a table; 0 where that is no expert."""
    is_there = (chosen >= 0) & (chosen < count)
    return np.where(is_there, chosen, 0).astype(np.int32)


def route_merits(logits: Array, attrs: Mapping[str, Any], bias: Array) -> Array:
    """[T, E] float32 what a choice with a bias compares."""
    compared = logits.astype(np.float64) if attrs.get("by_logits", False) else _scores(logits, attrs)
    return np.asarray(compared + bias.astype(np.float64), np.float32)


def group_worths(merits: Array, attrs: Mapping[str, Any]) -> Array:
    """[T, groups] float32 what groups of experts are judged by; a group with a NaN is worth a NaN."""
    grouped = np.sort(merits.reshape(len(merits), attrs["num_groups"], -1), axis=-1)  # NaN at the end
    return np.asarray(grouped[..., -attrs["group_best"] :].sum(axis=-1, dtype=np.float32))


def route_weights(
    logits: Array, ids: Array, attrs: Mapping[str, Any], gain: Array | None = None, judged: Array | None = None
) -> Array:
    """[T, k] float32 what chosen experts count, from logits [T, E] and ids [T, k].

    Args: gain: [E]. judged: logits that say which experts are near a chosen one, where those are others.
    """
    scores = _scores(logits, attrs)
    chosen = np.take_along_axis(scores, ids.astype(np.int64), axis=-1)
    if "margin" in attrs:
        chosen = _shares(logits, ids, attrs["margin"], logits if judged is None else judged)
    elif attrs["renormalize"]:
        most = 1.0 if "scores" in attrs else scores.max(axis=-1, keepdims=True)
        whole = chosen.sum(axis=-1, keepdims=True) + attrs.get("eps", 0.0)
        chosen = chosen / np.maximum(whole, LEAST_SCORES * most)
    chosen = chosen * attrs.get("factor", 1.0)
    return np.asarray(chosen if gain is None else chosen * gain.astype(np.float64)[ids], np.float32)


def _shares(logits: Array, ids: Array, margin: float, judged: Array) -> Array:
    """[T, k] float64: of each choice a softmax over what is near it and not chosen before."""
    places, shares = ids.astype(np.int64), []
    is_left = np.ones(logits.shape, np.bool_)
    for j in range(ids.shape[1]):
        best, chosen = (np.take_along_axis(each, places[:, j, None], -1) for each in (judged, logits))
        is_far = best - judged > np.float32(margin) * np.maximum(np.abs(judged), best)
        powers = np.exp(logits.astype(np.float64) - chosen)
        shares.append(1.0 / np.where(is_left & ~is_far, powers, 0.0).sum(axis=-1))
        np.put_along_axis(is_left, places[:, j, None], False, -1)
    return np.stack(shares, axis=-1)


def _scores(logits: Array, attrs: Mapping[str, Any]) -> Array:
    """[T, E] float64: sigmoids, roots of a softplus, or a softmax over all experts."""
    wide = logits.astype(np.float64)
    if attrs.get("scores") == "sigmoid":
        return sigmoid(wide)
    if attrs.get("scores") == "root_softplus":
        return np.asarray(np.sqrt(softplus(wide)))
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _best_first(numbers: Array) -> Array:
    """As top_logits: the lowest place first of equals, NaN before all numbers."""
    return np.lexsort((-numbers, ~np.isnan(numbers)), axis=-1)


def expert_linear(call: OpCall) -> tuple[Array, ...]:
    weight, ids, count = call["weight"], call["ids"].reshape(-1), call.attrs["num_experts"]
    if ids.size and ids.min() < 0:
        raise InvariantError(f"expert ids from {ids.min()} on: there is no expert below 0")
    x, height = rows_of_pairs(call), weight.shape[0] // count
    out = np.zeros((len(ids), height), np.float32)
    has_block = ids < count
    for expert in np.unique(ids[has_block]):
        rows, block = ids == expert, weight[expert * height : (expert + 1) * height]
        out[rows] = (x[rows].astype(np.float64) @ block.astype(np.float64).T).astype(np.float32)
    if "bias" in call.inputs:
        out[has_block] += call["bias"].reshape(count, height)[ids[has_block]]
    return (out,)


def rows_of_pairs(call: OpCall) -> Array:
    """[P, K] the row of x that each pair reads."""
    x, num_tokens, top_k = call["x"], len(call["ids"]), call.attrs["top_k"]
    return np.repeat(x, top_k, axis=0) if len(x) == num_tokens and top_k > 1 else np.asarray(x)


def combine(call: OpCall) -> tuple[Array, ...]:
    weights = call["weights"]
    if "ids" in call.inputs:
        whole = np.where(call["ids"] >= call.attrs["num_experts"], weights, 0).sum(axis=-1, dtype=np.float64)
        return (np.asarray(whole[:, None] * call["x"].astype(np.float64), np.float32),)
    rows = call["x"].reshape(*weights.shape, -1)
    out = weights[:, 0, None] * rows[:, 0]
    for j in range(1, weights.shape[1]):
        out += weights[:, j, None] * rows[:, j]
    return (np.asarray(out, np.float32),)


def gate_rows(call: OpCall) -> tuple[Array, ...]:
    x, gate = call["x"], call["gate"].astype(np.float64)
    by = softplus(gate) if call.attrs.get("kind") == "softplus" else sigmoid(gate)
    return ((by[..., None] * x.reshape(*gate.shape, -1)).reshape(x.shape).astype(np.float32),)
