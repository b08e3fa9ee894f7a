"""Layer by layer: the residual stream as the native program carries it, against the reference carrying its own.

Called by numerics.py. Errors grow from layer to layer here, as they do when the model runs; how much they may grow is
found out by a third stream: the reference, each result of which is moved within its tolerance, by chance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.experts import route_weights, shared_weight
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.backends.step_inputs import StepInputs
from albireo.dtypes import KV_CODES
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph, Node, Value
from albireo.verify.bounds import Bounded, evaluate
from albireo.verify.walk import Seen

#: Both streams stray by chance; the native one may stray twice as far as the moved one.
MARGIN = 2.0
_LAYER = re.compile(r"^layers\.(\d+)\b")
_SEED = 20


@dataclass(frozen=True, slots=True)
class LayerError:
    """The residual stream behind one layer, over all rows of all steps.

    Fields:
        name: embed, layers.3, or logits.
        error: norm of native minus reference, over the norm of the reference.
        tolerance: MARGIN times the same of the moved reference.
    """

    name: str
    error: float
    tolerance: float

    @property
    def is_right(self) -> bool:
        return self.error <= self.tolerance


class _Cache(ReferenceKV):
    """One that says what the kernel's attention rounds."""

    def __init__(self, num_blocks: int, block_size: int, dtype: str, products: str) -> None:
        super().__init__(num_blocks, block_size, dtype)
        self.products = products


class Carried:
    """Two references beside a walk: one that is right, and one whose every result is moved within its tolerance."""

    def __init__(self, graph: Graph, kv: KVLayout, num_blocks: int, products: str | None = None) -> None:
        """Args: products: see walk.products_of(); None: as the cache's type says."""
        self._points = _points(graph)
        self._names = list(dict.fromkeys(self._points.values()))
        self._caches = [_Cache(num_blocks, kv.block_size, kv.dtype, products or kv.dtype) for _ in range(2)]
        self._env: dict[Value, tuple[Array, Array]] = {}
        self._step: StepInputs | None = None
        self._sums = {name: np.zeros(3) for name in self._names}
        self._rng = np.random.default_rng(_SEED)

    def follow(self, seen: Seen, wanted: Sequence[Bounded]) -> None:
        """Run a call's node in both streams. wanted: what check_call was given, for its tolerances."""
        if seen.step is not self._step:
            self._step, self._env = seen.step, {}
        if seen.node.family == "route":
            self._follow_route(seen, wanted)
            return
        if any(value.type.dtype == "int32" for value in seen.node.outputs):
            return
        shifts: dict[int, Array] = {}

        def shift(i: int, value: Array) -> Array:
            shifts[i] = self._moved(value, wanted[i].error, seen.node.outputs[i].type.dtype)
            return shifts[i]

        right = evaluate(seen.node, self._roles(seen, 0), seen.step, bounded=False)
        moved = evaluate(seen.node, self._roles(seen, 1), seen.step, bounded=False, settle=shift)
        for i, (value, native) in enumerate(zip(seen.node.outputs, seen.results, strict=True)):
            a, b = right[i], moved[i]
            if value.type.dtype == "kv":
                self._move_cache(seen, b, wanted[i])
                continue
            shifted = shifts[i] if i in shifts else shift(i, b.value)
            self._env[value] = (a.value, shifted)
            if seen.node in self._points:
                self._add(self._points[seen.node], native, a.value, shifted)

    def _follow_route(self, seen: Seen, wanted: Sequence[Bounded]) -> None:
        """Both streams have the experts that the native one chose, which is judged by itself: a choice between logits
        that are nearly equal would part the streams, and say nothing of errors."""
        ids, attrs = seen.results[0], seen.node.attrs
        chosen, weights = seen.node.outputs
        gain, count = seen.roles.get("gain"), ids.shape[1] - bool(attrs.get("shared", False))
        streams = []
        for stream in range(2):
            roles = self._roles(seen, stream)
            found = [route_weights(roles["x"], ids[:, :count], attrs, gain, judged=seen.roles["x"])]
            if count < ids.shape[1]:
                found.append(shared_weight(OpCall(roles, attrs, seen.step), len(ids)))
            streams.append(np.concatenate(found, axis=1))
        right, moved = streams
        self._env[chosen] = (ids, ids)
        self._env[weights] = (right, self._moved(moved, wanted[1].error, "float32"))

    def errors(self) -> list[LayerError]:
        """In order of the graph."""
        found = []
        for name in self._names:
            native, moved, whole = np.sqrt(self._sums[name])
            if whole > 0:
                found.append(LayerError(name, float(native / whole), MARGIN * float(moved / whole)))
        return found

    def _roles(self, seen: Seen, stream: int) -> Mapping[str, Any]:
        roles = dict(seen.roles)
        for role, value in seen.node.inputs.items():
            if value.type.dtype == "kv":
                roles[role] = self._caches[stream]
            elif value in self._env:
                roles[role] = self._env[value][stream]
        return roles

    def _moved(self, value: Array, error: Any, dtype: str) -> Array:
        part = self._rng.uniform(-1, 1, value.shape)
        return round_to((value + part * error).astype(np.float32), dtype)

    def _move_cache(self, seen: Seen, moved: Bounded, own: Bounded) -> None:
        kv: ReferenceKV = moved.value
        # a cache of codes rounds row by row, when it is written
        dtype = "float32" if kv.dtype in KV_CODES else kv.dtype
        written = [self._moved(x, e, dtype) for x, e in zip(moved.behind, own.error, strict=True)]
        kv.write(seen.node.attrs["layer"], seen.step.slots, written[0], written[1] if len(written) > 1 else None)

    def _add(self, name: str, native: Array, right: Array, moved: Array) -> None:
        wide = right.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            off = [((native - wide) ** 2).sum(), ((moved - wide) ** 2).sum(), (wide**2).sum()]
        self._sums[name] += np.where(np.isnan(off), np.inf, off)


def _points(graph: Graph) -> dict[Node, str]:
    """The last node of each layer that writes the residual stream, the embedding, and the logits."""
    width = next(node.output.type for node in graph.nodes if node.family == "embed").dims[-1]
    last: dict[str, Node] = {}
    for node in graph.nodes:
        first = node.outputs[0]
        layer = _LAYER.match(node.origin)
        if graph.outputs.get("logits") is first:
            last["logits"] = node
        elif first.type.dtype == "float32" and first.type.dims[-1] == width:
            if node.family == "embed":
                last["embed"] = node
            elif layer is not None:
                last[layer[0]] = node
    return {node: name for name, node in last.items()}
