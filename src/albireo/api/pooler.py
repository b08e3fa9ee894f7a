"""LazyPooler: the model's second program, which gives hidden states, made when the first embedding is asked for.

Made by load.py, run by execution/runner.py. Does not know how it is compiled, or for which device.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.execution.runner import Pooler


class LazyPooler:
    """Invariant: the program is made once, by the first step that needs it."""

    def __init__(self, made: Callable[[], Pooler]) -> None:
        """Args: made: compiles, and shares the memory of the model."""
        self._made = made
        self._pooler: Pooler | None = None

    def run(self, inputs: StepInputs) -> StepOutputs:
        """As the program's run(). Cost: the first time, that of compiling: about 30 ms for 24 layers."""
        return self.pooler().run(inputs)

    def pooler(self) -> Pooler:
        """The program itself."""
        if self._pooler is None:
            self._pooler = self._made()
        return self._pooler
