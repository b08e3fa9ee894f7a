"""What a GPU cannot do better than, by the numbers it is sold with: the least times of a batch.

Called by plan.py, for a GPU that is named. No prediction: nothing of the GPU was measured, and kernels reach a part of
it. On several GPUs each rank has the limits of one, and what they tell each other costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from albireo.backends.cuda.known_gpus import KnownGpu
from albireo.bench.predict import Schedule, figures_of
from albireo.bench.roofline import Limits, Roofline
from albireo.graph.program import Program


class GpuBounds:
    """Of the programs of all ranks, each on a GPU of its own. dtype: of their products."""

    def __init__(self, gpu: KnownGpu, programs: Sequence[Program], dtype: str) -> None:
        self._gpu, self._num_gpus = gpu, len(programs)
        self._rooflines = [Roofline(program) for program in programs]
        self._limits = Limits(1e9 * gpu.gigabytes_per_s, gpu.flops_per_s(dtype))

    @property
    def limits(self) -> dict[str, Any]:
        """Of one of the GPUs."""
        return {"gpu": self._gpu.name, "num_gpus": self._num_gpus, **asdict(self._limits)}

    def of(self, planned: Schedule, num_requests: int, input_len: int, output_len: int) -> dict[str, Any]:
        """Times at least, in seconds, and tokens a second at most, of requests of a length that were planned."""
        floors = [
            max(self._limits.floor_s(roofline.work(step)) for roofline in self._rooflines) for step in planned.steps
        ]
        found = figures_of(floors, planned)
        step_s = found.decode_step_s
        return {
            "num_requests": num_requests,
            **asdict(found),
            "prompt_tokens_per_s": num_requests * input_len / found.prompt_s,
            "decode_tokens_per_s": None if step_s is None else num_requests / step_s,
            "output_tokens_per_s": num_requests * output_len / found.elapsed_s,
        }
