"""VisionRunner: makes rows of a language model's embeddings of a tile: stem, tower, neighbours put together, projector.

Made by api/, called where a prompt has pictures or sounds. A tile is one step with its patches as one sequence. Does
not know pictures, prompts or requests, nor which device computes: what it gives lies in host memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from albireo.backends.backend import KernelCatalog
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.choose_precision import Choice
from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError
from albireo.execution.inputs import step_of
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models.hearing.stem import ChoosesGraphs
from albireo.models.vision.patches import F32, Sequences
from albireo.models.vision.tensors import TowerTensors
from albireo.models.vision.tower import VisionTower, check_tensors

#: Positions of a block of keys and values.
_BLOCK_SIZE = 16


class TowerModel(Protocol):
    """A program of a tower, or of its projector, on a device."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...

    def run_layers(self, steps: Sequence[StepInputs]) -> StepOutputs:
        """Compute one step that layers of the KV cache cut into sequences each in a way of its own.

        Args: steps: of each such layer, alike but for sequences and where their keys and values are.
        Raises: InvariantError, as run().
        """
        ...


class VisionRunner:
    """A tower and its projector, ready to run.

    One tile at a time, in turn with other programs of the device.

    Invariant: rows depend on the tile alone: neither on tiles before it nor on the number of threads.
    """

    def __init__(
        self,
        tower: VisionTower,
        tensors: TowerTensors,
        programs: tuple[Program, ...],
        open_program: Callable[[Program, TowerTensors], TowerModel],
    ) -> None:
        """Args:
            tensors: of the tower's directory; may be closed behind this. programs: of vision_programs().
            open_program: makes one ready to run, with num_blocks() blocks of keys and values.

        Raises: WeightMismatch where tensors do not fit the tower.
        """
        self._tower, self.max_patches = tower, programs[0].maxima["T"]
        check_tensors(tower, tensors)
        tower.hold({name: tensors.tensor(name).to_float32() for name in tower.host_tensors})
        self._model, self._projector, *self._stem = (open_program(program, tensors) for program in programs)

    def rows(self, tile: F32) -> F32:
        """[n, hidden_size of the text part] of a tile [H, W, 3], normalized, or of a sound's [H, W]; the caller's own.

        Raises: InvariantError for a tile that the tower does not read, or of more patches than memory is planned for.
        """
        num_patches = self._tower.patches(*tile.shape[:2])
        if num_patches > self.max_patches:
            raise InvariantError(f"a tile of {num_patches} patches; memory is planned for {self.max_patches}")
        inputs = self._tower.inputs(self._behind_stem(tile, num_patches))
        hidden = _run(self._model, inputs.given, self._tower.sequences(*tile.shape[:2]), inputs.rope_rows)
        joined = self._tower.joined(hidden, inputs.grid)
        if self._tower.stem is not None:
            # of a sound silence may be seen that nobody is told of
            joined = joined[: self._tower.projected(*tile.shape[:2])]
        rows = _run(self._projector, (joined,), self._tower.projector_sequences(len(joined))).copy()
        return self._tower.placed(rows, inputs.grid, (tile.shape[0], tile.shape[1]))

    def _behind_stem(self, tile: F32, num_patches: int) -> F32:
        """What the tower reads of a tile: the tile where there is no stem."""
        stem = self._tower.stem
        if stem is None:
            return tile
        found = []
        for rows in stem.pieces(tile):
            chosen = stem.order(len(rows)) if isinstance(stem, ChoosesGraphs) else range(len(self._stem))
            for number in chosen:
                given, rope_rows = stem.given(number, rows)
                hidden = _run(self._stem[number], given, stem.sequences(number, len(rows)), rope_rows)
                rows = stem.behind(number, hidden)
            # the next piece is written where this one lies
            found.append(rows.copy())
        return np.concatenate(found)[:num_patches]


def vision_programs(
    tower: VisionTower, catalog: KernelCatalog, max_patches: int, choose: Choice | None = None
) -> tuple[Program, ...]:
    """Of a tower and of its projector, for tiles of up to max_patches patches, and of its stem; reads no weight.

    Args: choose: matrices that are held in few bits; None: none is.

    Raises: UnsupportedModel for a graph that no kernels perform.
    """

    def rounded(graph: Graph) -> Graph:
        if choose is not None:
            choose_precision.run(graph, choose)
        return graph

    most, stem = tower.most_rows(max_patches), tower.stem
    programs = [
        (tower.graph(), max_patches, tower.most_sequences(max_patches)),
        (tower.projector(), most, _most(tower.projector_sequences(most))),
    ]
    if stem is not None:
        counts = zip(stem.graphs(), stem.most_rows(max_patches), strict=True)
        programs += [(graph, rows, _most(stem.sequences(i, rows))) for i, (graph, rows) in enumerate(counts)]
    return tuple(
        compile_graph(
            rounded(graph),
            catalog,
            # best logits are of nobody, but whoever has room for so many has it for as many sequences
            maxima={"T": rows, "R": rows, "G": sequences},
            block_size=_BLOCK_SIZE,
            max_positions=rows,
        )
        for graph, rows, sequences in programs
    )


def rows_program(graph: Graph, catalog: KernelCatalog, most: int) -> Program:
    """Of a graph of given rows, up to so many at once; reads no weight. Raises: as vision_programs()."""
    maxima = {"T": most, "R": most, "G": 1}
    return compile_graph(graph, catalog, maxima=maxima, block_size=_BLOCK_SIZE, max_positions=most)


def _run(model: TowerModel, given: tuple[F32, ...], sequences: Sequences, rope_rows: F32 | None = None) -> F32:
    """Hidden states of what a program is given. Args: sequences: see VisionTower.sequences(); others: TowerInputs."""
    steps = [step_of(given, rope_rows, each, _BLOCK_SIZE) for each in sequences or ((len(given[0]),),)]
    return (model.run(steps[0]) if len(steps) == 1 else model.run_layers(steps)).hidden


def _most(sequences: Sequences) -> int:
    """Sequences of the layer that has most of them."""
    return max(map(len, sequences), default=1)


def num_blocks(program: Program) -> int:
    """Blocks that the largest tile fills, and the null block; each further sequence begins a block."""
    return 1 + -(-program.maxima["T"] // _BLOCK_SIZE) + program.maxima["G"] - 1
