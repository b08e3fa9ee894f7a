"""Everything that a model runs on, compiled: the program of each rank, and what guesses for it.

Called by load.py, and by whoever counts before anything is loaded, who so refuses what loading would. Reads no weight.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.api.drafts.draft_head import asked_head, plan_head, tapped
from albireo.api.drafts.drafter import Drafter, plan_drafter
from albireo.api.machine.device import Device
from albireo.api.programs import compile_program, with_adapter_room
from albireo.api.sources.source import ModelSource, guard
from albireo.compiler.rewrite import copy_graph
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.graph.program import Program
from albireo.models.checkpoint.rearranged import REARRANGED


@dataclass(frozen=True, slots=True)
class Compiled:
    """Sizes are of all ranks together, and of what guesses. Of several GPUs that is on the first, whose memory decides
    how many blocks each has; so all are counted as that one.

    Fields: programs: of each rank. drafter: None: nothing with weights guesses. adapter_bytes: of each rank's slots.
    """

    programs: tuple[Program, ...]
    drafter: Drafter | None
    adapter_bytes: tuple[int, ...]

    def weight_bytes(self, device: Device) -> int:
        own = 0 if self.drafter is None else self.drafter.weight_bytes(device)
        return sum(device.weight_bytes(program) for program in self.programs) + self._times(device) * own

    def arena_bytes(self, device: Device) -> int:
        """Activations."""
        own = sum(program.arena_bytes for program in self._guessing)
        return sum(program.arena_bytes for program in self.programs) + self._times(device) * own

    def choosing_bytes(self, device: Device, config: EngineConfig, max_positions: int) -> int:
        """What choosing among so many positions takes beside activations."""
        own = sum(device.choosing_bytes(config, [program], max_positions) for program in self._guessing)
        return device.choosing_bytes(config, self.programs, max_positions) + self._times(device) * own

    def block_bytes(self, device: Device) -> int:
        """Of one KV block."""
        own = 0 if self.drafter is None else self.drafter.block_bytes(device)
        return sum(device.block_bytes(program.kv) for program in self.programs) + self._times(device) * own

    @property
    def _guessing(self) -> tuple[Program, ...]:
        return () if self.drafter is None else self.drafter.programs

    def _times(self, device: Device) -> int:
        """How often what guesses is counted."""
        return 1 if device.name == "cpu" else len(self.programs)


def compile_all(
    config: EngineConfig, source: ModelSource, model_len: int, device: Device, *, may_lack_weights: bool = False
) -> Compiled:
    """Compile what config asks for, for sequences of up to model_len tokens.

    Args: config: as source.adopt() gives it. may_lack_weights: nothing is to be loaded: config.json is enough.
    Raises: ConfigError, UnsupportedModel; ModelError; EngineFileError when a built source does not fit.
    """
    head = asked_head(config, source, device, may_lack_weights=may_lack_weights)
    with guard(source):
        graph = source.graph(model_len)
        programs = tuple(compile_program(graph, config, model_len, part, device.catalog()) for part in source.parts)
        for rank, program in enumerate(programs):
            source.check(program, rank)
        if head is not None:
            graph = tapped(copy_graph(graph), head.taps, source.model_config)
            programs = tuple(compile_program(graph, config, model_len, part, device.catalog()) for part in source.parts)
        if source.model_config.pooling is not None:
            _refuse_without_text(config, source)
        if programs[0].states:
            _refuse_with_states(config, device)
        adapter_bytes: tuple[int, ...] = (0,) * len(programs)
        if config.enable_lora:
            kind = source.model_config.model_type
            if kind in REARRANGED:
                raise ConfigError(
                    f"enable_lora: model_type {kind} has matrices that are not computed as they lie, which adapters "
                    "would have to follow; leave enable_lora out, or merge the adapter into the checkpoint"
                )
            if source.model_config.blocks.times > 1:
                raise ConfigError(
                    f"enable_lora: model_type {kind} goes through its layers several times, each time of which would "
                    "need the same adapter; leave enable_lora out, or merge the adapter into the checkpoint"
                )
            each = zip(programs, source.parts, strict=True)
            rooms = [with_adapter_room(program, graph, config, model_len, device, part) for program, part in each]
            programs, adapter_bytes = tuple(program for program, _ in rooms), tuple(size for _, size in rooms)
    windows = programs[0].kv.windows
    drafter: Drafter | None = plan_drafter(config, windows, model_len, device, may_lack_weights=may_lack_weights)
    if head is not None:
        drafter = plan_head(config, source, head, graph, programs[0], model_len, device)
    return Compiled(programs, drafter, adapter_bytes)


def _refuse_with_states(config: EngineConfig, device: Device) -> None:
    """What is not done where sequences keep a state beside the KV cache. Raises: ConfigError naming it."""
    why = "layers of this model keep a state of each sequence, and"
    if config.speculative_config is not None and device.lookahead:
        raise ConfigError(f"speculative_config: {why} on a GPU drafts are not taken back from it yet; leave it out")
    if config.swap_space:
        raise ConfigError(f"swap_space: {why} who is preempted computes all tokens again; leave it out")
    if config.enable_lora:
        raise ConfigError(f"enable_lora: {why} adapters of such layers are not computed yet; leave it out")


def _refuse_without_text(config: EngineConfig, source: ModelSource) -> None:
    """What is not done for models that write no text. Raises: ConfigError naming it."""
    why = f"this model {source.pooling_rule.says}, and"
    if len(source.parts) > 1:
        raise ConfigError(f"tensor_parallel_size={len(source.parts)}: {why} ranks do not share it yet; leave it out")
    for name, asked in (("speculative_config", config.speculative_config), ("enable_lora", config.enable_lora)):
        if asked:
            raise ConfigError(f"{name}: {why} writes no text; leave it out")
