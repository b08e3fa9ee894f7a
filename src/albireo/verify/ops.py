"""Op by op: each call of the program against the reference run on exactly what the call read.

Called by numerics.py. An error is therefore the call's own, and the first wrong call is where something is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.experts import route_weights
from albireo.verify.bounds import Bounded
from albireo.verify.choices import as_chosen, keys_chosen, weight_error
from albireo.verify.walk import Seen


@dataclass(frozen=True, slots=True)
class Worst:
    """The element that is furthest off, in units of its tolerance.

    Fields:
        result: name of the value it is in.
        used: the part of its tolerance that its error takes; above 1 it is wrong; inf where equality was wanted.
    """

    result: str
    at: tuple[int, ...]
    seen: float
    wanted: float
    tolerance: float
    used: float


@dataclass(frozen=True, slots=True)
class CallCheck:
    """One call of one step.

    Fields:
        num_values: that it wrote; num_exact: of them equal to the reference's; num_wrong: out of tolerance.
        worst: None when nothing was written.
    """

    index: int
    step_idx: int
    origin: str
    family: str
    kernel: str
    num_values: int
    num_exact: int
    num_wrong: int
    worst: Worst | None

    @property
    def is_right(self) -> bool:
        return self.num_wrong == 0


def check_call(seen: Seen, wanted: Sequence[Bounded]) -> CallCheck:
    """Hold what a call wrote against what the reference makes of the same inputs."""
    parts: list[tuple[str, Array, Array, Any]] = []
    if seen.node.family == "route" and "bias" in seen.node.inputs:
        wanted = _as_chosen(seen, wanted)
    for value, result, each in zip(seen.node.outputs, seen.results, wanted, strict=True):
        if value.type.dtype == "kv":
            parts += zip(("k", "v")[: len(result)], result, each.behind, each.error, strict=True)
        elif each.behind:
            ids = seen.results[0]
            parts.append((value.name, *_top(ids, result, seen.step.top_counts, each)))
        elif seen.node.family == "choose_keys":
            call = OpCall(seen.roles, seen.node.attrs, seen.step)
            parts.append((value.name, *keys_chosen(call, result)))
        elif value.type.dtype != "int32" or seen.node.family == "route":
            parts.append((value.name, result, each.value, each.error))
    checks = [_compare(*part) for part in parts]
    worst = max((c[3] for c in checks if c[3] is not None), key=lambda w: w.used, default=None)
    return CallCheck(
        seen.index,
        seen.step_idx,
        seen.call.origin,
        seen.call.family,
        seen.call.kernel,
        sum(c[0] for c in checks),
        sum(c[1] for c in checks),
        sum(c[2] for c in checks),
        worst,
    )


def _as_chosen(seen: Seen, wanted: Sequence[Bounded]) -> list[Bounded]:
    """What the reference makes of the choice of a call, where it is one of those that are right."""
    x, attrs, ids = seen.roles["x"], seen.node.attrs, wanted[0].value
    count = ids.shape[1] - bool(attrs.get("shared", False))  # behind is what every row has
    chosen = as_chosen(x, seen.roles["bias"], attrs, ids[:, :count], seen.results[0][:, :count])
    if np.array_equal(chosen, ids[:, :count]):
        return list(wanted)
    gain = seen.roles.get("gain")
    weights = route_weights(x, chosen, attrs, gain)
    pairs = (chosen, ids), (weights, wanted[1].value), (weight_error(x, chosen, weights, attrs, gain), wanted[1].error)
    first, second, error = (np.concatenate([ours, theirs[:, count:]], axis=1) for ours, theirs in pairs)
    return [Bounded(first), Bounded(second, error)]


def _compare(name: str, seen: Array, wanted: Array, tolerance: Any) -> tuple[int, int, int, Worst | None]:
    """How many values, how many are equal, how many wrong, and the worst. What is no number is wrong."""
    if seen.size == 0:
        return 0, 0, 0, None
    with np.errstate(invalid="ignore", divide="ignore"):
        is_same = seen == wanted
        off = np.where(is_same, 0.0, np.abs(seen.astype(np.float64) - wanted))
        allowed = np.broadcast_to(np.asarray(tolerance, np.float64), seen.shape)
        used = np.where(is_same, 0.0, off / allowed)
    used = np.where(np.isnan(used), np.inf, used)
    at = np.unravel_index(int(np.argmax(used)), used.shape)
    worst = Worst(
        name, tuple(int(i) for i in at), float(seen[at]), float(wanted[at]), float(allowed[at]), float(used[at])
    )
    return seen.size, int(is_same.sum()), int((used > 1).sum()), worst


def _top(ids: Array, values: Array, counts: Array, wanted: Bounded) -> tuple[Array, Array, Array]:
    """What a row of best logits says, what it should say, and the tolerance.

    Each chosen logit must be that of its id; the last must not be below the best of those left out.
    """
    (logits,) = wanted.behind
    error = np.broadcast_to(np.asarray(wanted.error, np.float64), logits.shape)
    said, right, allowed = (np.zeros((len(logits), values.shape[1] + 1)) for _ in range(3))
    for row, count in enumerate(np.minimum(counts, logits.shape[1])):
        chosen = ids[row, :count]
        is_id = (chosen >= 0) & (chosen < logits.shape[1])
        if not is_id.all() or len(set(chosen.tolist())) < count or (np.diff(values[row, :count]) > 0).any():
            said[row, 0] = np.nan
            continue
        said[row, :count], right[row, :count] = values[row, :count], logits[row, chosen]
        allowed[row, :count] = error[row, chosen]
        rest = np.delete(logits[row], chosen)
        if rest.size:
            best = int(np.argmax(rest))
            said[row, -1], right[row, -1] = min(values[row, count - 1], rest[best]), rest[best]
            allowed[row, -1] = np.delete(error[row], chosen)[best] + error[row, chosen[-1]]
    return said, right, allowed
