"""How long a layer of a vision tower takes here and now: its own kernels at its own sizes, on zeros.

Called by plan.py before a weight is read. The limits of a machine are what it can do for milliseconds, in registers or
in a row of memory; a picture takes seconds beside whatever else uses the processor's caches, and on a shared machine
that is up to half as much again. Does not know pictures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from albireo.backends.cpu.machine import thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.backends.weights import Tensor
from albireo.errors import InvariantError
from albireo.execution.inputs import step_of
from albireo.execution.vision import num_blocks
from albireo.graph.program import Program
from albireo.models.checkpoint.safetensors_file import raw_tensor
from albireo.quantization.encoded import Encoded

#: Runs behind the first, which brings memory; and no further one behind so many seconds.
_RUNS, _ENOUGH_S = 8, 2.0


def layer_program(program: Program) -> Program:
    """Of a tower, what is computed from one attention to the next: each call of a layer once.

    A tower of one layer, or of none, is taken as a whole.
    """
    places = [i for i, call in enumerate(program.calls) if call.family == "attention"]
    calls = program.calls[places[0] : places[1]] if len(places) > 1 else program.calls
    read = {name for call in calls for name in call.args.values()}
    constants = {name: constant for name, constant in program.constants.items() if name in read}
    return replace(program, calls=calls, constants=constants)


def layer_seconds(layer: Program, num_patches: int, num_threads: int | None) -> list[float]:
    """Of each of several runs of what layer_program() gives, the first left out where there are others.

    Cost: a second or two; memory for one layer's weights and the activations of so many patches.
    """
    blocks = min(num_blocks(layer), 1 + -(-num_patches // layer.kv.block_size))
    model = CpuModel(layer, _Zeros(layer), thread_pool(num_threads), blocks)
    # what a whole tower reads; of a layer alone nothing but how many rows there are
    widths = {call.attrs["place"]: int(call.attrs["width"]) for call in layer.calls if call.family == "given"} or {0: 1}
    given = tuple(np.zeros((num_patches, widths[place]), np.float32) for place in sorted(widths))
    step = step_of(given, None, (num_patches,), layer.kv.block_size)
    found: list[float] = []
    started = time.perf_counter()
    while len(found) <= _RUNS and time.perf_counter() - started < _ENOUGH_S:
        before = time.perf_counter()
        model.run(step)
        found.append(time.perf_counter() - before)
    return found[1:] or found


class _Zeros:
    """Weights of a program, all of them zero. Implements backends.weights.Weights."""

    def __init__(self, program: Program) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        for constant in program.constants.values():
            definition = constant.definition
            for segment in () if definition is None else definition.segments:
                if segment.source is not None:
                    rows = max(segment.stop, self._shapes.get(segment.source, (0,))[0])
                    is_vector = constant.rows == 1
                    self._shapes[segment.source] = (rows,) if is_vector else (rows, constant.cols)

    @property
    def encodings(self) -> Mapping[str, str]:
        return {}

    def tensor(self, name: str) -> Tensor:
        return raw_tensor(name, "float32", np.zeros(self._shapes[name], np.float32))

    def encoded(self, name: str) -> Encoded:
        raise InvariantError(f"{name}: zeros are in no encoding")

    def blocks(self, name: str) -> None:
        """There are none."""

    def release(self, name: str) -> None:
        """There is nothing to let go."""
