"""LazyPooler: the model's second program, which gives hidden states, made when the first embedding is asked for.

Made by load.py, run by execution/runner.py. Does not know how it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.backends.cpu.model import CpuModel, StepOutputs
from albireo.backends.cpu.ranks import TensorParallelModel
from albireo.backends.step_inputs import StepInputs
from albireo.graph.program import Program


class LazyPooler:
    """Invariant: it has the weights and the KV cache of a model, whose program and its own run in turn."""

    def __init__(self, model: CpuModel | TensorParallelModel, compiled: Callable[[], tuple[Program, ...]]) -> None:
        """Args: compiled: makes a program for each rank of the model."""
        self._model = model
        self._compiled = compiled
        self._shared: CpuModel | TensorParallelModel | None = None

    def run(self, inputs: StepInputs) -> StepOutputs:
        """As the model's run(), with hidden states.

        Cost: the first time, that of compiling: about 30 ms for 24 layers; and room for activations, where the model's
        are too small for its own.
        """
        return self.model().run(inputs)

    def model(self) -> CpuModel | TensorParallelModel:
        """The program, bound to the model's memory."""
        if self._shared is None:
            programs, model = self._compiled(), self._model
            self._shared = model.sharing(programs[0]) if isinstance(model, CpuModel) else model.sharing(programs)
        return self._shared
