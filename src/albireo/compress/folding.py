"""Scales of a layer's inputs: found on what the layer is given, and folded into its weights.

Called by run.py with the weights of one layer, before any of them is rounded. The layer computes the same function
afterwards: what a group reads is divided by the scales where it is made, and its weights are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.backends.reference.rounding import round_to
from albireo.compress.source import Source
from albireo.compress.stages import Fold, Group
from albireo.compress.statistics import Inputs
from albireo.encodings import Encoding, encoding
from albireo.graph.node import Value
from albireo.quantization.encoded import F32
from albireo.quantization.methods.scaling import Scaled, awq_candidates, search_scales, smoothquant_candidates
from albireo.quantization.methods.search import search_grid

FOLDING_METHODS = ("smoothquant", "awq")


@dataclass(slots=True)
class Layer:
    """The constants of one layer, as they are being changed.

    Fields:
        constants: by value. changed: names of tensors that are no longer the checkpoint's.
        scales: what inputs of a group (by name) were divided by.
    """

    constants: dict[Value, Any]
    changed: set[str]
    scales: dict[str, F32]

    def value(self, name: str) -> Value:
        return next(value for value in self.constants if value.name == name)

    def __getitem__(self, name: str) -> F32:
        array: F32 = self.constants[self.value(name)]
        return array

    def __setitem__(self, name: str, array: F32) -> None:
        self.constants[self.value(name)] = array


def find_scales(
    group: Group, inputs: Inputs, layer: Layer, choice: Mapping[str, Encoding], method: str, source: Source
) -> Scaled | None:
    """The best scales for a group; None where it has no place for them or is not quantized."""
    members = [name for name in group.weights if name in choice]
    if group.fold is None or len(members) != len(group.weights):
        return None
    coding = choice[members[0]]
    weights = [layer[name] for name in members]
    candidates = smoothquant_candidates(inputs.max, weights) if method == "smoothquant" else awq_candidates(inputs.mean)
    return search_scales(
        inputs.sample,
        weights,
        candidates,
        lambda weight: _quickly_rounded(weight, coding),
        coding.activation == "int8.token",
        _snap(group.fold, layer, choice, source),
    )


def fold(group: Group, scales: F32, layer: Layer, source: Source) -> None:
    """Multiply the group's weights, and divide what makes its input."""
    place = group.fold
    assert place is not None
    for name in group.weights:
        layer[name] = layer[name] * scales
        layer.changed.add(name)
    if place.kind == "norm":
        layer[place.weight] = _folded_norm(place, scales, layer, source)
    else:
        rows = _of_rows(place, scales)
        layer[place.weight] = layer[place.weight] / rows[:, None]
        if place.bias is not None:
            layer[place.bias] = layer[place.bias] / rows
            layer.changed.add(place.bias)
    layer.changed.add(place.weight)
    layer.scales[group.name] = scales


def _snap(place: Fold, layer: Layer, choice: Mapping[str, Encoding], source: Source) -> Callable[[F32], F32]:
    """Makes scales such that what is divided by them can be stored exactly, or is quantized anyway."""

    def for_norm(scales: F32) -> F32:
        before, folded = layer[place.weight], _folded_norm(place, scales, layer, source)
        is_usable = (before != 0) & (folded != 0)
        return np.where(is_usable, before / np.where(is_usable, folded, 1), np.float32(1)).astype(np.float32)

    def for_rows(scales: F32) -> F32:
        heads = _by_heads(place, scales)
        # heads that read the same values share their scales
        heads = np.broadcast_to(np.exp(np.mean(np.log(heads), axis=1, keepdims=True)), heads.shape)
        shared = heads.reshape(scales.shape)
        if place.weight not in choice or place.bias is not None:
            # powers of two divide what is stored in 16 bits exactly
            shared = np.exp2(np.rint(np.log2(shared)))
        return np.asarray(shared, np.float32)

    return for_norm if place.kind == "norm" else for_rows


def _folded_norm(place: Fold, scales: F32, layer: Layer, source: Source) -> F32:
    return round_to(layer[place.weight] / scales, source.checkpoint.tensor(place.weight).dtype)


def _by_heads(place: Fold, scales: F32) -> F32:
    """[K] -> [value heads, query heads that read each, channels]."""
    if place.kind != "heads":
        return scales[:, None, None]
    return scales.reshape(place.num_kv_heads, place.num_heads // place.num_kv_heads, -1)


def _of_rows(place: Fold, scales: F32) -> F32:
    """[N] what each output channel of the linear before is divided by."""
    return np.ascontiguousarray(_by_heads(place, scales)[:, 0].reshape(-1))


def _quickly_rounded(weight: F32, coding: Encoding) -> F32:
    plain = encoding(f"int4.g{coding.group}") if coding.kind == "progressive" else coding
    return search_grid(weight, plain, shrinks=(1.0,)).encode(weight).decode()
