"""The program of a model for the steps that a configuration allows.

Called by load.py, build.py, drafter.py and the commands that look at programs. Reads no weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from albireo.api.machine.device import Device
from albireo.api.machine.devices import open_device
from albireo.backends.backend import BLOCK_GROUPS, KernelCatalog
from albireo.backends.cpu.adapters import padded_rank
from albireo.compiler.passes import hidden_states
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import adapter_passes, compile_graph, passes_without
from albireo.config import EngineConfig
from albireo.dtypes import kv_cache_dtype
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.speculative_config import MAX_DRAFTS

#: Positions of prompts whose log-probabilities one step computes; a row of logits each.
MAX_PROMPT_ROWS = 64


def with_adapter_room(
    program: Program, graph: Graph, config: EngineConfig, model_len: int, device: Device, part: Part | None
) -> tuple[Program, int]:
    """A program in whose arena the one with adapters finds room, as they run in turn; and the bytes of the slots."""
    second = compile_program(graph, config, model_len, part, device.catalog(), has_adapters=True)
    num_bytes = device.adapter_bytes(second, config.max_loras)
    if device.name == "cpu" and part is not None and part.size > 1:  # whose ranks meet in arenas of each program
        return program, num_bytes + second.arena_bytes
    return replace(program, arena_bytes=max(program.arena_bytes, second.arena_bytes)), num_bytes


def compile_program(
    graph: Graph,
    config: EngineConfig,
    model_len: int,
    part: Part | None = None,
    catalog: KernelCatalog | None = None,
    *,
    has_adapters: bool = False,
    has_block_groups: bool = True,
    packings: Mapping[str, str] | None = None,
    cache: KVLayout | None = None,
) -> Program:
    """Compile for the steps that config allows, for one rank or for one that is alone.

    Args:
        catalog: kernels to choose from; None: those of the device that config asks for. has_adapters: of linears.
        has_block_groups: layers with windows may have blocks of their own, where the kernels can do that.
        packings, cache: see compile_graph().
    Raises: UnsupportedModel; ConfigError when config leaves out a pass that cannot be, or the model cannot be cut so.
    """
    seqs, tokens = config.step_limits.max_num_seqs, config.step_limits.max_num_batched_tokens
    # logits are large and wanted of few rows, hidden states of all that are to be pooled
    num_rows = tokens if hidden_states.OUTPUT in graph.outputs else seqs + MAX_PROMPT_ROWS
    # drafts are in steps without prompts, and may take the logits of these
    num_draft_rows = 0 if config.speculative_config is None else MAX_DRAFTS
    assert MAX_DRAFTS <= MAX_PROMPT_ROWS
    passes = passes_without(config.without)
    if has_adapters:
        passes = adapter_passes(passes, padded_rank(config.max_lora_rank))
    catalog = catalog or open_device(config).catalog()
    return compile_graph(
        graph,
        catalog,
        maxima={"T": tokens, "R": num_rows, "G": seqs + num_draft_rows},
        block_size=config.block_size,
        max_positions=model_len,
        part=part,
        passes=passes,
        kv_dtype=kv_cache_dtype(config.kv_cache_dtype),
        has_block_groups=has_block_groups and BLOCK_GROUPS in catalog.abilities,
        packings=packings,
        cache=cache,
        keeps_linears=config.enable_lora,
    )
