"""The graphs of all ranks, run together in one process: each in a thread of its own, meeting at every all_reduce.

Called by tests and by whoever compares a backend. The oracle of tensor parallelism.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from albireo.backends.joining import join_top
from albireo.backends.reference.call import Array
from albireo.backends.reference.interpret import Interpretation, interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.step_inputs import StepInputs
from albireo.graph.node import Graph


def interpret_ranks(
    graphs: Sequence[Graph], inputs: StepInputs, weights: Mapping[str, Array], kvs: Sequence[ReferenceKV]
) -> Interpretation:
    """Run one step of a model that is cut among ranks.

    Args:
        graphs: one a rank, in order; base graphs or fused ones.
        kvs: each rank's part of the KV cache.
    Returns: outputs as those of the whole model: logits joined along the vocabulary, best logits among all parts.
    Raises: what interpret() raises, of the rank that met it first; the others stop waiting then.
    """
    meeting = _Meeting(len(graphs))
    with ThreadPoolExecutor(len(graphs), "rank") as pool:
        futures = [pool.submit(meeting.run, r, graph, inputs, weights, kvs[r]) for r, graph in enumerate(graphs)]
    if meeting.error is not None:
        raise meeting.error
    outputs = [future.result().outputs for future in futures]
    ids, values = join_top(
        [out["top_ids"] for out in outputs],
        [out["top_values"] for out in outputs],
        [out["logits"].shape[1] for out in outputs],
        inputs.top_counts,
    )
    logits = np.concatenate([out["logits"] for out in outputs], axis=1)
    return Interpretation({"logits": logits, "top_ids": ids, "top_values": values})


class _Meeting:
    """Where ranks hand each other arrays."""

    def __init__(self, size: int) -> None:
        self.error: BaseException | None = None
        self._barrier = threading.Barrier(size)
        self._given: list[Array | None] = [None] * size

    def run(
        self, rank: int, graph: Graph, inputs: StepInputs, weights: Mapping[str, Array], kv: ReferenceKV
    ) -> Interpretation:
        try:
            return interpret(graph, inputs, weights, kv, exchange=lambda x: self._exchange(rank, x))
        except threading.BrokenBarrierError:
            raise
        except BaseException as error:
            self.error = self.error or error
            raise
        finally:
            if self.error is not None:
                self._barrier.abort()

    def _exchange(self, rank: int, x: Array) -> list[Array]:
        self._given[rank] = x
        self._barrier.wait()
        given = [array for array in self._given if array is not None]
        self._barrier.wait()
        return given
