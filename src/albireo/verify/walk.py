"""A step of the engine's program, call by call: what each call read, and what it wrote.

Called by numerics.py. Calls run one at a time on what those before them left in memory, so each is seen by itself: what
it read is what it is judged by. Does not judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.backends.cuda.catalog import LEVEL as CUDA_LEVEL
from albireo.backends.reference.call import Array
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.errors import InvariantError
from albireo.graph.node import Graph, Node
from albireo.graph.program import Call, Program
from albireo.graph.program_spec import FAMILIES, STEP_ARRAYS
from albireo.models.checkpoint.weights import Checkpoint
from albireo.verify.attention_bound import UNITS_OF_BFLOAT16, UNITS_OF_FLOAT16
from albireo.verify.weight_rows import WeightRows


class CallModel(Protocol):
    """A program on a device, which can be run one call at a time, and whose memory can be looked at in between."""

    @property
    def program(self) -> Program: ...

    def run_call(self, index: int, inputs: StepInputs) -> StepOutputs:
        """Compute one call of a step on what is there. Returns: the best logits, behind the call that finds them."""
        ...

    def value(self, name: str, inputs: StepInputs) -> NDArray[Any]:
        """[rows, cols] a copy of a buffer: float32, ids int32."""
        ...

    def cached(self, layer: int, slots: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """k, v: [len(slots), K, D] copies of the KV cache."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One call that ran.

    Fields:
        index: of the call in the program; step_idx: of the step.
        node: what it stands for in the checkpoint's graph.
        roles: what it read, by role of node: activations as the native program left them, constants of the checkpoint.
        results: what it wrote, one for each output of node; of the KV cache k and v [T, K, D].
    """

    index: int
    step_idx: int
    step: StepInputs
    call: Call
    node: Node
    roles: Mapping[str, Any]
    results: Sequence[Any]


def products_of(program: Program) -> str:
    """What is multiplied in this program's attention, see attention_bound: the type of its cache, where that says it.

    A GPU multiplies codes, int8 as fp8, by probabilities times scales in bfloat16, and queries as they are.
    """
    if not any(call.kernel.endswith("." + CUDA_LEVEL) for call in program.calls):
        return program.kv.dtype
    return {"float32": "float32", "float16": UNITS_OF_FLOAT16}.get(program.kv.dtype, UNITS_OF_BFLOAT16)


class NativeKV:
    """The native KV cache as the reference reads one; writing is left to the native call."""

    def __init__(self, model: CallModel) -> None:
        self._model = model
        self.dtype = model.program.kv.dtype
        self.products = products_of(model.program)

    def read(self, layer: int, blocks: NDArray[np.int32], length: int, every: int = 1) -> tuple[Array, Array]:
        """k, v: [length // every, K, D], the first entries of the sequence whose blocks these are."""
        size, at = self._model.program.kv.block_size, (np.arange(length // every) + 1) * every - 1
        return self._model.cached(layer, (blocks[at // size] * size + at % size).astype(np.int32))

    def write(self, layer: int, slots: NDArray[np.int32], k: Array, v: Array | None) -> None:
        """Nothing: the native call has written."""


def walk(model: CallModel, graph: Graph, checkpoint: Checkpoint, steps: Sequence[StepInputs]) -> Iterator[Seen]:
    """Run steps, one call after another; calls on no rows are left out.

    Args:
        graph: the checkpoint's, fused as the program was: node i is what call i stands for.
        checkpoint: what graph's constants are made of.
    Raises: InvariantError when a call and its node are of different families.
    Cost: each weight is widened to float32 once for each step, in parts.
    """
    calls = model.program.calls
    if [call.family for call in calls] != [node.family for node in graph.nodes]:
        raise InvariantError(f"{len(calls)} calls and {len(graph.nodes)} nodes are not of the same families")
    for step_idx, step in enumerate(steps):
        for index, (call, node) in enumerate(zip(calls, graph.nodes, strict=True)):
            if model.program.sizes(step.sizes)[call.rows]:
                roles = _read(model, call, node, checkpoint, step)
                yield Seen(index, step_idx, step, call, node, roles, _run(model, index, node, step))


def _read(model: CallModel, call: Call, node: Node, checkpoint: Checkpoint, step: StepInputs) -> dict[str, Any]:
    roles: dict[str, Any] = {}
    for role, value in node.inputs.items():
        if value.constant is not None:
            rows = WeightRows(value, checkpoint)
            roles[role] = rows if len(rows.shape) > 1 else rows[:]
        elif value.type.dtype == "kv":
            roles[role] = NativeKV(model)
        elif value.name in STEP_ARRAYS:
            roles[role] = getattr(step, value.name)
        else:
            roles[role] = model.value(call.args[role], step)
    return roles


def _run(model: CallModel, index: int, node: Node, step: StepInputs) -> list[Any]:
    call = model.program.calls[index]
    outputs = model.run_call(index, step)
    written: dict[str, Any] = {}
    if call.family in ("head_top", "top"):
        written = {"ids": outputs.top_ids.copy(), "values": outputs.top_values.copy()}
    names = iter(FAMILIES[call.family].outputs)
    results: list[Any] = []
    for value in node.outputs:
        if value.type.dtype == "kv":
            parts = model.program.kv.layers[node.attrs["layer"]].num_parts
            results.append(model.cached(node.attrs["layer"], step.slots)[:parts])
        else:
            role = next(names)
            results.append(written[role] if role in written else model.value(call.args[role], step))
    return results
