"""kv_write, attention over the paged cache, and one attention of two, one sequence and one head at a time.

Called by interpret.py. Scores, softmax and the weighted sum are float64 throughout, so the probabilities are never
rounded to 16 bits as a kernel may do; only the result is rounded, to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import F32
from albireo.graph.attention_op import NOTHING_SEEN, SUM_NUMBERS, head_width, keys_taken, lists_of, result_width
from albireo.graph.distance_columns import distance_columns

F64 = NDArray[np.float64]


def kv_write(call: OpCall) -> tuple[ReferenceKV]:
    kv, attrs = call["kv"], call.attrs
    shape = (call.step.num_tokens, attrs["num_kv_heads"], attrs["head_dim"])
    v = call["v"].reshape(shape) if "v" in call.inputs else None
    if "every" in attrs:
        ends = (call.step.positions + 1) % attrs["every"] == 0
        kv.write(attrs["layer"], call.step.slots[ends], call["k"].reshape(shape)[ends], None)
    else:
        kv.write(attrs["layer"], call.step.slots, call["k"].reshape(shape), v)
    return (kv,)


def choose_keys(call: OpCall) -> tuple[Array, ...]:
    attrs, step = call.attrs, call.step
    if "block" in attrs:
        return (_blocks_of_best(call),)
    found = np.full((step.num_tokens, attrs["count"]), -1, np.int32)
    every, is_spelled = attrs.get("every", 1), attrs.get("as_positions", False)
    for row, scores in enumerate(key_scores(call)):
        best = np.sort(np.argsort(-scores, kind="stable")[: keys_taken(attrs)])
        if is_spelled:
            behind = np.arange(len(scores) * every, int(step.positions[row]) + 1)
            best = np.concatenate([(best[:, None] * every + np.arange(every)).reshape(-1), behind])
        found[row, : len(best)] = best
    return (found,)


def _blocks_of_best(call: OpCall) -> NDArray[np.int32]:
    """[T, heads * count] of a choose_keys of blocks."""
    attrs, block = call.attrs, call.attrs["block"]
    found = np.full((call.step.num_tokens, attrs["num_heads"], attrs["count"]), -1, np.int32)
    for row, worths in enumerate(block_worths(call)):
        position = int(call.step.positions[row])
        for head, worth in enumerate(worths):
            best = np.sort(np.argsort(-worth, kind="stable")[: attrs["count"] // block])
            places = (best[:, None] * block + np.arange(block)).reshape(-1)
            places = places[places <= position]
            found[row, head, : len(places)] = places
    return found.reshape(len(found), -1)


def block_worths(call: OpCall) -> list[F64]:
    """Of each row of a choose_keys of blocks, [heads, blocks], what blocks up to its own are worth; infinite are those
    that are always chosen."""
    block, found = call.attrs["block"], []
    for scores in key_scores(call):
        padded = np.pad(scores, ((0, 0), (0, -scores.shape[1] % block)), constant_values=-np.inf)
        worths = padded.reshape(len(scores), -1, block).max(axis=2)
        worths[:, -call.attrs["nearest"] :] = np.inf
        found.append(worths)
    return found


def key_scores(call: OpCall) -> list[F64]:
    """Of each row of a choose_keys the scores of the positions it may choose from, its own being the last, or of the
    entries; of blocks those of each head, [heads, positions]."""
    attrs, step, kv, found = call.attrs, call.step, call["kv"], []
    every = attrs.get("every", 1)
    q = call["q"].reshape(step.num_tokens, attrs["num_heads"], attrs["head_dim"]).astype(np.float64)
    for b in range(step.num_sequences):
        k, _ = kv.read(attrs["layer"], step.block_table[b], int(step.context_len[b]), every)
        for row in range(int(step.query_start[b]), int(step.query_start[b + 1])):
            keys = k[: (int(step.positions[row]) + 1) // every, 0].astype(np.float64)
            of_heads = q[row] @ keys.T
            if "block" not in attrs:
                weights = call["weights"][row] if "weights" in call.inputs else np.ones(attrs["num_heads"])
                of_heads = weights.astype(np.float64) @ np.maximum(of_heads, 0.0)
            found.append(of_heads)
    return found


def attention(call: OpCall) -> tuple[Array, ...]:
    attrs, step, kv = call.attrs, call.step, call["kv"]
    if "rows" in call.inputs:
        return of_rows(call, lambda whole: attention(whole)[0])
    q = call["q"].reshape(step.num_tokens, attrs["num_heads"], attrs["head_dim"])
    width = result_width(attrs)
    out = np.zeros((*q.shape[:-1], head_width(attrs)), np.float32)
    extra = (call.inputs.get("sinks"), call.inputs.get("distances"))
    for b in range(step.num_sequences):
        rows = slice(int(step.query_start[b]), int(step.query_start[b + 1]))
        k, v = kv.read(attrs["layer"], step.block_table[b], int(step.context_len[b]), attrs.get("every", 1))
        ends = None if step.row_ends is None or attrs.get("causal", False) else step.row_ends[rows]
        chosen = call["chosen"][rows] if "chosen" in call.inputs else None
        added = None
        if "from_rows" in call.inputs:
            from_keys = call["from_keys"][rows] if "from_keys" in call.inputs else None
            added = added_by_columns(call["from_rows"][rows], from_keys, attrs, step.positions[rows], len(k))
        out[rows] = one_sequence(q[rows], k, v[..., :width], step.positions[rows], attrs, *extra, ends, chosen, added)
    return (out.reshape(step.num_tokens, -1),)


def of_rows(call: OpCall, compute: Callable[[OpCall], Array]) -> tuple[Array, ...]:
    """What an attention of all rows of the step computes of those that this one has."""
    rows = call["rows"]
    rest = {role: value for role, value in call.inputs.items() if role != "rows"}
    for role in ("q", "from_rows"):
        if role in rest and len(rest[role]) != call.step.num_tokens:
            every = np.zeros((call.step.num_tokens, rest[role].shape[1]), rest[role].dtype)
            every[rows] = rest[role]
            rest[role] = every
    return (compute(replace(call, inputs=rest))[rows],)


def one_sequence(
    q: F32,
    k: F32,
    v: F32,
    positions: NDArray[np.int32],
    attrs: Mapping[str, Any],
    sinks: F32 | None = None,
    distances: F32 | None = None,
    ends: NDArray[np.int32] | None = None,
    chosen: NDArray[np.int32] | None = None,
    added: F64 | None = None,
) -> F32:
    """q: [n, H, D]; k: [C, K, D]; v: [C, K, W]; sinks: [H]; distances: [2n + 1, H]; ends: [n]; chosen: [n, count], or
    with own_lists [n, K * count]; added: [H, n, C] -> [n, H, W], or what sums are of that: [n, H, W + 2]."""
    group = attrs["num_heads"] // attrs["num_kv_heads"]
    lists = [] if chosen is None else [among(each, len(k)) for each in np.split(chosen, lists_of(attrs), axis=1)]
    seen = visible(positions, len(k), attrs) if chosen is None else lists[0]
    places = np.arange(len(k))[None, :]
    if ends is not None and "num_keys" in attrs:
        seen &= (places < ends[:, None]) | (ends[:, None] == 0)
    elif ends is not None:
        seen |= (places > positions[:, None]) & (places < ends[:, None])
    out = np.empty((*q.shape[:-1], v.shape[-1] + (SUM_NUMBERS if attrs.get("sums") else 0)), np.float32)
    for head in range(attrs["num_heads"]):
        if len(lists) > 1:
            seen = lists[head // group]
        keys, values = k[:, head // group].astype(np.float64), v[:, head // group].astype(np.float64)
        scores = q[:, head].astype(np.float64) @ keys.T * attrs["scale"]
        if added is not None:
            scores = scores + added[head]
        if attrs["softcap"] is not None:
            scores = attrs["softcap"] * np.tanh(scores / attrs["softcap"])
        if "slopes" in attrs:
            scores = scores + by_slope(positions, len(k), attrs["slopes"][head])
        if distances is not None:
            scores = scores + by_distance(positions, len(k), distances[:, head])
        sink = -np.inf if sinks is None else float(sinks[head])
        if attrs.get("sums", False):
            out[:, head] = _sums(np.where(seen, scores, -np.inf), values)
            continue
        out[:, head] = _softmax(np.where(seen, scores, -np.inf), sink) @ values
    return out


def by_distance(positions: NDArray[np.int32], length: int, numbers: F32) -> F64:
    """[n, C]: what is added to scores. Args: numbers: of a head, of distances -n to n."""
    reach = len(numbers) // 2
    away = np.arange(length)[None, :] - positions[:, None]
    return np.asarray(numbers.astype(np.float64)[np.clip(away, -reach, reach) + reach])


def added_by_columns(
    from_rows: F32, from_keys: F32 | None, attrs: Mapping[str, Any], positions: NDArray[np.int32], length: int
) -> F64:
    """[H, n, length]: what is added to scaled scores of n rows of a sequence; of from_keys, it has no others."""
    heads, reach, places = attrs["num_heads"], attrs["reach"], np.arange(length)[None, :]
    rows = from_rows.reshape(len(from_rows), heads, -1).astype(np.float64)
    columns = np.array(distance_columns(rows.shape[-1], reach))
    at = columns[np.clip(positions[:, None] - places, -reach, reach) + reach]
    added = np.stack([np.take_along_axis(rows[:, head], at, axis=1) for head in range(heads)])
    if from_keys is not None:
        keys = from_keys.reshape(rows.shape).astype(np.float64)
        added += np.stack([keys[places, head, at] for head in range(heads)])
    return np.asarray(added * attrs["scale"])


def by_slope(positions: NDArray[np.int32], length: int, slope: float) -> F64:
    """[n, C]: what is added to scores of a head, whose slope is a float32."""
    away = np.arange(length, dtype=np.float64)[None, :] - positions[:, None]
    return np.asarray(float(np.float32(slope)) * away)


def visible(positions: NDArray[np.int32], length: int, attrs: Mapping[str, Any]) -> NDArray[np.bool_]:
    """[n, C]: which cache positions, or entries, each row sees; a window, None or 0 for none, counts the row's own
    position; see graph.ops."""
    if "every" in attrs:
        return np.asarray(np.arange(length)[None, :] < (positions[:, None] + 1) // attrs["every"])
    back = positions[:, None] - np.arange(length)[None, :]
    if attrs.get("in_chunks", False):
        return np.asarray((back >= 0) & (back <= positions[:, None] % attrs["window"]))
    window, both_ways = attrs["window"] or length, attrs.get("both_ways", False)
    seen: NDArray[np.bool_] = (back < window) & (back > -window if both_ways else back >= 0)
    places = np.arange(length)[None, :]
    if "num_keys" in attrs:
        return np.array(np.broadcast_to(places < attrs["num_keys"], seen.shape))
    return np.asarray(seen & (places >= attrs.get("first_key", 0)))


def among(chosen: NDArray[np.int32], length: int) -> NDArray[np.bool_]:
    """[n, C]: which cache positions each row has chosen."""
    seen = np.zeros((len(chosen), length + 1), np.bool_)
    np.put_along_axis(seen, np.where(chosen < 0, length, chosen).astype(np.int64), True, axis=1)
    return seen[:, :length]


def _sums(scores: F64, values: F64) -> F64:
    """[n, W + 2] of what attention gives where sums are wanted, see graph.ops. Args: scores: [n, C]; values: [C, W]."""
    powers = scores * np.log2(np.e)
    most = powers.max(axis=-1, keepdims=True, initial=NOTHING_SEEN)
    parts = np.exp2(powers - most)
    return np.concatenate([parts @ values, most, parts.sum(axis=-1, keepdims=True)], axis=-1)


def join_sums(call: OpCall) -> tuple[Array, ...]:
    heads = call.attrs["num_heads"]
    parts = [call[role].astype(np.float64).reshape(len(call["x"]), heads, -1) for role in ("x", "y")]
    sink = (call["sinks"].astype(np.float64) * np.log2(np.e))[:, None]
    most = np.maximum(sink, np.maximum(*(each[..., -2:-1] for each in parts)))
    by = [np.exp2(each[..., -2:-1] - most) for each in parts]
    whole = sum(power * each[..., -1:] for power, each in zip(by, parts, strict=True)) + np.exp2(sink - most)
    found = sum(power * each[..., :-2] for power, each in zip(by, parts, strict=True)) / whole
    return (np.asarray(found.reshape(len(call["x"]), -1), np.float32),)


def _softmax(scores: F64, sink: float) -> F64:
    """Of each row's scores and the sink, without the sink's own share."""
    most = np.maximum(scores.max(axis=-1, keepdims=True), sink)
    weights = np.exp(scores - most)
    return np.asarray(weights / (weights.sum(axis=-1, keepdims=True) + np.exp(sink - most)), np.float64)
