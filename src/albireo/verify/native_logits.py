"""A loaded model as something that gives logits: one sequence, computed in chunks, a row of logits for each token.

Called by run.py; what quality.py calls a Predictor. Does not schedule: nothing else may run on the model meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from albireo.execution.inputs import pack_step
from albireo.execution.runner import DeviceModel
from albireo.graph.program import Program
from albireo.step import SequenceWork, StepPlan


class NativeLogits:
    """One model; a sequence takes its KV blocks from 1 on."""

    def __init__(self, model: DeviceModel, program: Program) -> None:
        """program: that the model runs, or its first rank."""
        self._model = model
        self._block_size = program.kv.block_size
        self._chunk = min(program.maxima["T"], program.maxima["R"])

    def logits(self, token_ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """[n, V] behind each token, in parts; a part is overwritten by the next."""
        block_size = self._block_size
        blocks = list(range(1, 2 + len(token_ids) // block_size))
        for start in range(0, len(token_ids), self._chunk):
            part = list(token_ids[start : start + self._chunk])
            # targets are counted only: a row of logits is wanted for each
            work = SequenceWork(0, part, start, (blocks,), prompt_logprobs=0, prompt_targets=part, state_slot=0)
            yield self._model.run(pack_step(StepPlan(0, [work], len(part)), block_size).inputs).logits
