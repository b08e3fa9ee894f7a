"""How far a choice may be from the reference: which experts a route, and which keys a choose_keys, may have chosen by
rounding; and what weights of experts are off by.

Called by bounds.py and ops.py. Logits alone are compared as they are, so that one choice is right; scores with a bias
are rounded before they are compared, and of two that are nearly equal either may be taken. Does not know kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.attention import key_scores
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.experts import group_worths, route_merits
from albireo.graph.attention_op import keys_taken
from albireo.verify.rounding_bound import FLUSHED

F64 = NDArray[np.float64]
#: Unit roundoff of float32.
_U = 2.0**-24


def weight_error(
    logits: Any, ids: Any, weights: Any, attrs: Mapping[str, Any], gain: Any = None, moved: Any = 0.0
) -> F64:
    """[T, k] what weights of chosen experts may be off by.

    Args: gain: [E] on weights, or None. moved: [T, 1] what logits are off by at most.
    """
    off = _score_error(logits, attrs)
    chosen = np.take_along_axis(off, ids.astype(np.int64), axis=-1)
    roundings = logits.shape[1] + (5 if gain is None else 6)
    relative = chosen + off.max(axis=-1, keepdims=True) + roundings * _U + 2 * moved
    factor = attrs.get("factor", 1.0) * (1.0 if gain is None else np.abs(gain[ids].astype(np.float64)))
    return np.asarray(np.abs(weights) * relative + logits.shape[1] * FLUSHED * factor)


def as_chosen(x: Any, bias: Any, attrs: Mapping[str, Any], right: Any, ids: Any) -> Any:
    """[T, k] right, the reference's choice, but of rows where rounding may have led to ids: those.

    Args: ids: [T, k] of a call that read x and bias.
    """
    merits = route_merits(x, attrs, bias).astype(np.float64)
    off = _score_error(x, attrs) + (0.0 if "scores" in attrs else x.shape[1] * _U)
    off = np.zeros_like(off) if attrs.get("by_logits", False) else off
    error = off * np.abs(merits - bias) + 2 * _U * np.abs(merits) + FLUSHED
    found = right.copy()
    for row in np.flatnonzero((right != ids).any(axis=1)):
        if _may_be(merits[row], error[row], ids[row], attrs):
            found[row] = ids[row]
    return found


def keys_chosen(call: OpCall, ids: Any) -> tuple[F64, F64, F64]:
    """[lists] each: of a list the lowest score among the keys, or blocks, that it has, the highest among those it has
    not, and what the first may be below the second. NaN where it is no list of as many positions as there are, or as
    can be chosen.

    Args: call: a choose_keys. ids: [T, count] that a kernel chose, or of each head as many.
    """
    found = [
        _compared(*each)
        for row, (scores, error) in enumerate(zip(key_scores(call), _key_errors(call), strict=True))
        for each in (_of_blocks if "block" in call.attrs else _of_keys)(call, row, scores, error, ids[row])
    ]
    low, high, allowed = np.array(found, np.float64).reshape(-1, 3).T
    return low, high, allowed


def _compared(scores: F64, error: F64, chosen: Any) -> tuple[float, float, float]:
    """See keys_chosen(). Args: chosen: of these; None: it is no list."""
    if chosen is None:
        return np.nan, 0.0, 0.0
    low, others = scores[chosen].min(), np.delete(np.arange(len(scores)), chosen)
    if not len(others):
        return low, low, 0.0
    worst, best = chosen[np.argmin(scores[chosen])], others[np.argmax(scores[others])]
    return min(low, scores[best]), scores[best], error[worst] + error[best]


def _of_keys(call: OpCall, row: int, scores: F64, error: F64, ids: Any) -> Iterator[tuple[F64, F64, Any]]:
    """Of a row its one list."""
    is_spelled = call.attrs.get("as_positions", False)
    every, end = (call.attrs["every"], int(call.step.positions[row]) + 1) if is_spelled else (1, len(scores))
    places = ids[ids >= 0]
    chosen = np.unique(places[places < len(scores) * every] // every)
    is_list = len(chosen) == min(keys_taken(call.attrs), len(scores)) and (ids[len(places) :] == -1).all()
    # of an entry all positions, in order; behind entries those that have none
    whole = (chosen[:, None] * every + np.arange(every)).reshape(-1)
    behind = np.arange(len(scores) * every, end)
    is_list = is_list and np.array_equal(places, np.concatenate([whole, behind]))
    if len(chosen):
        yield scores, error, chosen if is_list else None
    else:  # no entry is there yet
        yield np.zeros(1), np.zeros(1), np.zeros(1, np.int64) if is_list else None


def _of_blocks(call: OpCall, _: int, scores: F64, error: F64, ids: Any) -> Iterator[tuple[F64, F64, Any]]:
    """Of a row the list of each head, as numbers of blocks; those that are always chosen are compared with none."""
    block, length = call.attrs["block"], scores.shape[1]
    count = -(-length // block)
    free, most = count - min(count, call.attrs["nearest"]), call.attrs["count"] // block
    fill = ((0, 0), (0, count * block - length))
    worths = np.pad(scores, fill, constant_values=-np.inf).reshape(len(scores), count, block).max(axis=2)
    errors = np.pad(error, fill).reshape(len(error), count, block).max(axis=2)
    for head, found in enumerate(np.split(ids, len(scores))):
        places = found[found >= 0]
        blocks = np.unique(places // block)
        whole = (blocks[:, None] * block + np.arange(block)).reshape(-1)
        is_list = np.array_equal(found[: len(places)], whole[whole < length]) and (found[len(places) :] == -1).all()
        is_list = is_list and len(blocks) == min(count, most) and np.isin(np.arange(free, count), blocks).all()
        chosen = blocks[blocks < free]
        if is_list and free and len(chosen):
            yield worths[head, :free], errors[head, :free], chosen
        else:  # nothing was to choose, or less than it should
            yield np.zeros(1), np.zeros(1), np.zeros(1, np.int64) if is_list else None


def _key_errors(call: OpCall) -> Iterator[F64]:
    """Of each row what scores may be off by: sums over channels, then over heads."""
    sizes = {role: np.abs(np.asarray(call[role])) for role in ("q", "weights") if role in call.inputs}
    whole = replace(call, inputs={**call.inputs, **sizes, "kv": _Sizes(call["kv"])})
    heads, channels = call.attrs["num_heads"], call.attrs["head_dim"]
    for scores in key_scores(whole):  # of sizes alone
        yield (4 * np.sqrt(channels + 4) + 4 * np.sqrt(heads + 4)) * _U * scores + FLUSHED


class _Sizes:
    """A KV cache of the sizes of what is in another."""

    def __init__(self, kv: Any) -> None:
        self._kv = kv

    def read(self, layer: int, blocks: NDArray[np.int32], length: int, every: int = 1) -> tuple[Any, Any]:
        """See ReferenceKV."""
        k, v = self._kv.read(layer, blocks, length, every)
        return np.abs(k), np.abs(v)


def _score_error(logits: Any, attrs: Mapping[str, Any]) -> F64:
    """[T, E] relative error of an exponential, or of a sigmoid or the root of a softplus, which nearly are one."""
    wide = logits.astype(np.float64)
    size = np.abs(wide) if "scores" in attrs else wide.max(axis=-1, keepdims=True) - wide
    return np.asarray((16 + 4 * np.minimum(size, 90)) * _U)


def _may_be(merits: F64, error: F64, ids: Any, attrs: Mapping[str, Any]) -> bool:
    """Whether no expert that was left out, or put behind another, is better by more than rounding."""
    if not ((ids >= 0) & (ids < len(merits))).all() or len(set(ids.tolist())) < len(ids):
        return False
    is_open = _open_experts(merits, error, ids, attrs)
    rest = np.flatnonzero(is_open & ~np.isin(np.arange(len(merits)), ids))
    low, high = merits - error, merits + error
    is_sorted = (high[ids[:-1]] >= low[ids[1:]]).all()
    return bool(is_open[ids].all() and is_sorted and (not rest.size or high[ids[-1]] >= low[rest].max()))


def _open_experts(merits: F64, error: F64, ids: Any, attrs: Mapping[str, Any]) -> NDArray[np.bool_]:
    """[E] those of the groups that are kept, taking the side of groups that ids are of where rounding decides."""
    if "num_groups" not in attrs:
        return np.ones(len(merits), np.bool_)
    size = len(merits) // attrs["num_groups"]
    worths = group_worths(merits[None].astype(np.float32), attrs)[0].astype(np.float64)
    slack = attrs["group_best"] * error.reshape(-1, size).max(axis=1) + _U * np.abs(worths)
    is_taken = np.isin(np.arange(len(worths)), ids // size)
    kept = np.argsort(-(worths + np.where(is_taken, 2 * slack.max(), 0)), kind="stable")[: attrs["kept_groups"]]
    return np.isin(np.arange(len(merits)) // size, kept)
