"""RankModels: what a rank of several computes with, but the first: its model, further programs of it, and adapters.

Owned by rank_process.py, which carries what the first rank says. Compiles what load.py and compiled.py compile for this
rank, so that all ranks make the same calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from albireo.api.drafts.draft_head import tapped
from albireo.api.machine.cuda_device import AbsentGpu
from albireo.api.programs import compile_program, with_adapter_room
from albireo.api.ranks.rank_start import RankStart
from albireo.api.sources.source import ModelSource, guard
from albireo.compiler.passes import hidden_states
from albireo.compiler.rewrite import copy_graph
from albireo.graph.node import Graph
from albireo.graph.program import Program

if TYPE_CHECKING:
    from albireo.backends.cuda.adapters import CudaAdapters
    from albireo.backends.cuda.model import CudaModel

#: Further programs, as backends.cuda.orders names them -> whether it is that of hidden states.
FURTHER = {"share": True, "adapt": False}


class RankModels:
    """Fields: program: of the model, for take()."""

    def __init__(self, start: RankStart, source: ModelSource) -> None:
        self._start, self._source = start, source
        self._device = AbsentGpu(start.capability)
        self._models: dict[int, CudaModel] = {}
        self._slots: CudaAdapters | None = None
        self.program = self._first_program()

    def take(self, model: CudaModel) -> None:
        """It is the first."""
        self._models[0] = model

    def make_slots(self) -> None:
        """Have slots of adapters. Raises: OutOfMemory."""
        from albireo.backends.cuda.adapters import CudaAdapters

        model, config = self._models[0], self._start.config
        self._slots = CudaAdapters(self._further(has_hidden=False), config.max_loras, model.device)

    def make(self, number: int, name: str) -> None:
        """A further program. Args: name: of FURTHER."""
        model, has_hidden = self._models[0], FURTHER[name]
        program = self._further(has_hidden=has_hidden)
        if has_hidden:
            self._models[number] = model.sharing(program, self._slots)
        else:
            assert self._slots is not None, "adapters come behind their slots"
            self._models[number] = model.with_adapters(program, self._slots)

    def obey(self, number: int, name: str, data: Any, words: bytes) -> None:
        """Do what the first rank does; see backends.cuda.orders."""
        from albireo.backends.cuda.orders import argument

        found = argument(name, data, words)
        if name == "put":
            assert self._slots is not None, "adapters come behind their slots"
            self._slots.put_part(found)
        else:
            self._models[number].obey(name, found)

    def _first_program(self) -> Program:
        with guard(self._source):
            graph = self._graph()
            program = self._compiled(graph)
            if not self._start.config.enable_lora:
                return program
            part = self._source.parts[self._start.rank]
            return with_adapter_room(program, graph, self._start.config, self._model_len, self._device, part)[0]

    def _further(self, *, has_hidden: bool) -> Program:
        """With adapters, where there are any."""
        with guard(self._source):
            graph = self._graph()
            if has_hidden:
                hidden_states.run(graph)
            return self._compiled(graph, has_adapters=self._start.config.enable_lora)

    def _graph(self) -> Graph:
        graph = copy_graph(self._source.graph(self._model_len))
        return tapped(graph, self._start.taps, self._source.model_config)

    def _compiled(self, graph: Graph, *, has_adapters: bool = False) -> Program:
        part, catalog = self._source.parts[self._start.rank], self._device.catalog()
        config, model_len = self._start.config, self._model_len
        return compile_program(graph, config, model_len, part, catalog, has_adapters=has_adapters)

    @property
    def _model_len(self) -> int:
        return self._start.config.max_model_len or self._source.default_model_len
