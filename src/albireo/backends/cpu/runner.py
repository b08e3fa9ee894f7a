"""Calls of a model as a program of their own, whose tuning may change between runs.

Made by model.py, run by tune/. Does not know clocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.step_inputs import StepArrays, StepInputs
from albireo.graph.tuning import BUCKETS, Tuning


@dataclass(frozen=True, slots=True)
class Runner:
    """Calls of a model, alone. arrays: see CpuModel.step_arrays. lists: of chosen positions, which they read."""

    native: _native.Program
    arrays: Callable[[StepInputs], StepArrays]
    top_ids: NDArray[np.int32]
    top_values: NDArray[np.float32]
    lists: tuple[NDArray[np.int32], ...] = ()

    def __call__(self, inputs: StepInputs) -> None:
        """Run them all, the GIL released."""
        self.native.run(*self.arrays(inputs), self.top_ids, self.top_values)

    def retune(self, tuning: Tuning) -> None:
        """Give every call these numbers, for any number of rows."""
        self.native.retune(native_tunings((tuning,) * len(BUCKETS)))


@cache
def native_tunings(tunings: tuple[Tuning, ...]) -> list[dict[str, int]]:
    """As the native core takes them; the calls of all layers share a few."""
    return [asdict(tuning) for tuning in tunings]
