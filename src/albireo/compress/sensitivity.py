"""How much the model's predictions suffer from each group of linears alone, and from each encoding of it.

Called by choosing.py for mixed schemes. One pass over the layers: beside the text as it was goes one copy of it for
every group seen so far, in which that group alone has few bits; at the end each copy's predictions are held against the
text's. So every layer is read once, and what is held grows with groups * tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from albireo.compress.forward import Batch, Env, run_nodes
from albireo.compress.recipe import MIXED_CHOICES, fitting, stored_bits
from albireo.compress.rounding import relative_error
from albireo.compress.source import Source
from albireo.compress.stages import Group, Stage
from albireo.compress.texts import Text, batch
from albireo.encodings import Encoding
from albireo.graph.node import Value
from albireo.quantization.encoded import F32
from albireo.quantization.methods.search import search_grid

#: Of the calibration text; divergences of a few hundred predictions rank groups well enough.
NUM_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Option:
    """One encoding of a group. Fields: bits: of all its weights; cost: KL divergence in nats a token, estimated."""

    encoding: Encoding | None
    bits: int
    cost: float


def measure_options(
    stages: Sequence[Stage], source: Source, text: Text, kept: frozenset[str], advance: Callable[[int], None]
) -> dict[str, list[Option]]:
    """Group -> what it may become, from few bits to many. The head and what is kept are left out.

    The divergence is measured for the fewest bits; that of others follows from the error of the group's outputs, to
    whose square it is proportional while it is small.
    """
    window = batch(text.windows[0][:NUM_TOKENS])
    walk = _Walk(source, window, kept)
    for _, group in groupby(stages, key=lambda stage: stage.layer):
        parts = list(group)
        values = tuple(dict.fromkeys(v for stage in parts for v in stage.constants))
        constants = source.constants(values, whole=parts[-1] is stages[-1])
        for stage in parts:
            walk.step(stage, constants, is_last=stage is stages[-1])
            advance(1)
    return walk.options()


class _Walk:
    """The text and its copies between two stages."""

    def __init__(self, source: Source, window: Batch, kept: frozenset[str]) -> None:
        self._source, self._window, self._kept = source, window, kept
        self._plain: Env = {}
        self._copies: dict[str, Env] = {}
        self._errors: dict[str, list[tuple[Encoding | None, int, float]]] = {}
        self._divergence: dict[str, float] = {}

    def step(self, stage: Stage, constants: Mapping[Value, Any], is_last: bool) -> None:
        self._plain = run_nodes(stage.before, self._plain, self._window, constants, stage.keep_before)
        weights = [name for name in stage.group.weights if name not in self._kept]
        fewer = None
        if weights and not stage.group.is_head:
            fewer = self._try(stage, constants, weights)
        for name, env in self._copies.items():
            env = run_nodes(stage.before, env, self._window, constants, stage.keep_before)
            self._copies[name] = run_nodes(stage.nodes, env, self._window, constants, stage.keep)
        if fewer is not None:
            rounded, names = fewer
            self._copies[stage.group.name] = run_nodes(
                stage.nodes, self._plain, self._window, rounded, stage.keep, names
            )
        self._plain = run_nodes(stage.nodes, self._plain, self._window, constants, stage.keep)
        if is_last:
            (logits,) = stage.keep
            right = _log_softmax(self._plain[logits])
            for name, env in self._copies.items():
                seen = _log_softmax(env[logits])
                self._divergence[name] = float(np.mean(np.sum(np.exp(right) * (right - seen), axis=1)))

    def options(self) -> dict[str, list[Option]]:
        found = {}
        for name, errors in self._errors.items():
            first = errors[0][2] or 1.0
            found[name] = [
                Option(coding, bits, max(self._divergence[name], 0.0) * (error / first) ** 2)
                for coding, bits, error in errors
            ]
        return found

    def _try(
        self, stage: Stage, constants: Mapping[Value, Any], names: list[str]
    ) -> tuple[dict[Value, Any], frozenset[str]]:
        """Errors of every encoding; the constants with the first of them, and the weights whose inputs it rounds."""
        sample = self._plain[stage.group.input]
        by_name = {value.name: value for value in constants}
        weights = {name: constants[by_name[name]] for name in names}
        changed = dict(constants)
        errors: list[tuple[Encoding | None, int, float]] = []
        for coding in _choices(sample.shape[1]):
            bits = sum(stored_bits(coding, weight.shape, self._scale_bits(names[0])) for weight in weights.values())
            square = 0.0
            for name, weight in weights.items():
                if coding is None:
                    continue
                matrix = search_grid(weight, coding).encode(weight)
                square += relative_error(weight, matrix, sample) ** 2
                if not errors:
                    changed[by_name[name]] = matrix.decode()
            errors.append((coding, bits, (square / len(weights)) ** 0.5))
        self._errors[stage.group.name] = errors
        first = errors[0][0]
        return changed, frozenset(names if first is not None and first.activation == "int8.token" else ())

    def _scale_bits(self, name: str) -> int:
        return 16 if self._source.checkpoint.tensor(name).dtype == "bfloat16" else 32


def _choices(width: int) -> Iterator[Encoding | None]:
    """Each once: several may come to the same where groups do not divide the inputs."""
    seen: set[str] = set()
    for name in MIXED_CHOICES:
        coding = None if name is None else fitting(name, width)
        if str(coding) not in seen:
            seen.add(str(coding))
            yield coding


def group_weights(groups: Sequence[Group], kept: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Group -> its weights that are not kept."""
    return {group.name: tuple(name for name in group.weights if name not in kept) for group in groups}


def _log_softmax(logits: F32) -> F32:
    wide = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)), np.float32)
