"""Texts on their way through the model twice, beside the calibration: as it was, and quantized so far.

Called by run.py, layer by layer, so that the weights of no second model are needed to compare the two at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.compress.forward import Batch, Env, run_nodes
from albireo.compress.stages import Stage
from albireo.compress.texts import Text, batch
from albireo.graph.node import Value
from albireo.quantization.encoded import F32
from albireo.verify.quality import Quality, measure

Constants = Mapping[Value, Any]
NOTHING: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Window:
    """One window on both ways. Fields: right: input of the layer's first linears, of the model as it was."""

    batch: Batch
    clean: Env
    quantized: Env
    right: F32 | None = None


class Evaluation:
    """All windows of all texts.

    Attributes: drift: for each layer seen, how far the input of its first linears is from what it was, relative.
    """

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = texts
        self._windows = [[_Window(batch(window), {}, {}) for window in text.windows] for text in texts]
        self.drift: list[float] = []

    def pass_clean(self, stages: Sequence[Stage], constants: Constants) -> None:
        """One layer as it was."""
        for window in self._each():
            for index, stage in enumerate(stages):
                env = run_nodes(stage.before, window.clean, window.batch, constants, stage.keep_before)
                if index == 0:
                    window.right = env[stage.group.input]
                window.clean = run_nodes(stage.nodes, env, window.batch, constants, stage.keep)

    def pass_quantized(
        self, stages: Sequence[Stage], constants: Constants, rounded: frozenset[str], scales: Mapping[str, F32]
    ) -> None:
        """One layer as it is now. scales: by which inputs of a group were divided."""
        lost = size = 0.0
        for window in self._each():
            for index, stage in enumerate(stages):
                env = run_nodes(stage.before, window.quantized, window.batch, constants, stage.keep_before)
                if index == 0:
                    distance, norm = self._distance(window, stage, env, scales)
                    lost, size = lost + distance, size + norm
                window.quantized = run_nodes(stage.nodes, env, window.batch, constants, stage.keep, rounded)
        self._note(lost, size)

    def measure_head(
        self,
        head: Stage,
        before: Constants,
        after: Constants,
        rounded: frozenset[str],
        scales: Mapping[str, F32],
        advance: Callable[[int], None],
    ) -> list[Quality]:
        """The head on both ways, and what the two models make of each text."""
        found = []
        lost = size = 0.0
        for text, windows in zip(self._texts, self._windows, strict=True):
            clean = _Head(head, before, [(w.batch, w.clean) for w in windows], NOTHING)
            quantized = _Head(head, after, [(w.batch, w.quantized) for w in windows], rounded)
            found.append(measure(quantized, clean, text.windows, advance))
            for window, ours, right in zip(windows, quantized.inputs, clean.inputs, strict=True):
                window.right = right
                distance, norm = self._distance(window, head, {head.group.input: ours}, scales)
                lost, size = lost + distance, size + norm
        self._note(lost, size)
        return found

    @staticmethod
    def _distance(window: _Window, stage: Stage, env: Env, scales: Mapping[str, F32]) -> tuple[float, float]:
        ours, right = env[stage.group.input], window.right
        assert right is not None
        ours = ours * scales.get(stage.group.name, np.float32(1))
        window.right = None
        return float(np.sum((ours - right) ** 2, dtype=np.float64)), float(np.sum(right**2, dtype=np.float64))

    def _note(self, lost: float, size: float) -> None:
        self.drift.append((lost / size) ** 0.5 if size > 0 else 0.0)

    def _each(self) -> Iterator[_Window]:
        for windows in self._windows:
            yield from windows


class _Head:
    """The end of a way as something that gives logits, for the windows in the order they are asked for."""

    def __init__(
        self, head: Stage, constants: Constants, windows: list[tuple[Batch, Env]], rounded: frozenset[str]
    ) -> None:
        self._head, self._constants, self._rounded = head, constants, rounded
        self._windows = iter(windows)
        self.inputs: list[F32] = []

    def logits(self, token_ids: Sequence[int]) -> Iterator[F32]:
        """[n, V]; a window is asked for without its last token, whose row is left out."""
        window, env = next(self._windows)
        env = run_nodes(self._head.before, env, window, self._constants, self._head.keep_before)
        self.inputs.append(env[self._head.group.input])
        env = run_nodes(self._head.nodes, env, window, self._constants, self._head.keep, self._rounded)
        yield env[self._head.keep[0]][: len(token_ids)]
