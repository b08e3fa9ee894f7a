"""The compiler on one screen: a graph goes in, every pass rewrites it in this order, a program comes out.

Called by api/ at load and by cli/inspect. Does not know models or devices: the backend is asked, as a KernelCatalog.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from albireo.backends.backend import EIGHT_BY_EIGHT_FLOATS, FOUR_BY_SIXTEEN, SHARED_EXPERTS, KernelCatalog
from albireo.compiler.block_groups import group_blocks
from albireo.compiler.emit import emit, kv_layout, make_calls, place_barriers
from albireo.compiler.layouts import plan_layouts
from albireo.compiler.memory_plan import plan_memory
from albireo.compiler.passes import (
    add_adapters,
    attention_of_rows,
    canonicalize,
    fold_norm,
    fold_scale,
    fuse_all_reduce,
    fuse_attention_cast,
    fuse_attention_codes,
    fuse_clipped_gate,
    fuse_combine,
    fuse_embed,
    fuse_epilogue,
    fuse_gather,
    fuse_head,
    fuse_head_cast,
    fuse_head_rows,
    fuse_kv_row,
    fuse_norm,
    fuse_normed_values,
    fuse_output_gate,
    fuse_qkv_rope_kv,
    fuse_rope,
    fuse_rounding,
    fuse_streams,
    fuse_two_norms,
    join_shared_experts,
    last_layer_rows,
    linear_parts,
    merge_gate_up,
    merge_qkv,
    narrow_activations,
    plain_choice,
    plain_scales,
    rows_before_head,
    rows_of_sharing_layers,
    shard,
    single_ops,
    stack_linears,
    widen_activations,
)
from albireo.compiler.rewrite import copy_graph, label
from albireo.compiler.select import select_kernels
from albireo.errors import ConfigError, InvariantError, UnsupportedModel
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.graph.report import PassRecord
from albireo.graph.spec import check_graph

Pass = Callable[[Graph], PassRecord]

#: Every rewrite, in order: each changes the graph in place and says what it did.
PASSES: tuple[Pass, ...] = (
    canonicalize.run,
    fold_scale.run,
    merge_qkv.run,
    merge_gate_up.run,
    rows_before_head.run,
    last_layer_rows.run,
    # before fuse_norm: the norm of a single KV head looks like any other norm
    fuse_qkv_rope_kv.run,
    fuse_norm.run,
    # takes every gather that no norm took
    fuse_gather.run,
    # before fuse_epilogue, which takes every linear that is left
    fuse_head.run,
    fuse_all_reduce.run,
    fuse_epilogue.run,
    fuse_combine.run,
    fuse_attention_cast.run,
    fuse_head_cast.run,
    fuse_embed.run,
    # takes every op that is left
    single_ops.run,
)

#: Rewrites for backends with kernels that others do not have: what a catalog's abilities must name, the pass that it
#: goes behind (left out where that one is), and the pass.
ABLE_PASSES: tuple[tuple[str, Pass, Pass], ...] = (
    (EIGHT_BY_EIGHT_FLOATS, canonicalize.run, narrow_activations.run),
    (FOUR_BY_SIXTEEN, canonicalize.run, widen_activations.run),
    # before last_layer_rows, which moves the rows of one part of a sum
    (SHARED_EXPERTS, merge_gate_up.run, join_shared_experts.run),
    # before add_adapters, so that programs with and without have the same matrices
    ("columns in place", last_layer_rows.run, stack_linears.run),
    ("columns in place", fuse_head_cast.run, linear_parts.run),
    # before fuse_norm, which takes every norm that is left
    ("streams at once", fuse_qkv_rope_kv.run, fuse_streams.run),
    ("turned rows", fuse_qkv_rope_kv.run, fuse_normed_values.run),
    ("turned rows", fuse_qkv_rope_kv.run, fuse_kv_row.run),
    ("turned rows", fuse_qkv_rope_kv.run, plain_choice.run),
    # before fuse_rope, which takes every rotation that is left
    ("turned rows", fuse_qkv_rope_kv.run, fuse_head_rows.run),
    ("turned rows", fuse_qkv_rope_kv.run, fuse_rope.run),
    ("two norms", fuse_norm.run, fuse_two_norms.run),
    # before fuse_epilogue, which has no such activation for the linear of a gate
    ("clipped gates", fuse_gather.run, fuse_clipped_gate.run),
    ("gated outputs", fuse_gather.run, fuse_output_gate.run),
    # takes every rounding that is left
    ("rounded rows", fuse_embed.run, fuse_rounding.run),
    ("attention of rows", last_layer_rows.run, rows_of_sharing_layers.run),
    ("norms in linears", fuse_combine.run, fold_norm.run),
    ("attention to codes", fuse_attention_cast.run, fuse_attention_codes.run),
    ("attention of rows", fuse_attention_cast.run, attention_of_rows.run),
)

#: Passes that are no choice, and why; the others can be left out by name, to measure what they are worth.
OBLIGATORY = {
    "canonicalize": "the other passes know one spelling of a graph",
    "fuse_gather": "nothing else gives a gather its kernel",
    "fuse_embed": "nothing else gives an embedding its kernel",
    "fuse_all_reduce": "nothing else gives a sum over ranks its kernel",
    "single_ops": "nothing else gives what the others leave its kernels",
}


def pass_name(run: Pass) -> str:
    """What a pass is called in reports, on the command line and as a file."""
    return run.__module__.rpartition(".")[2]


def optional_passes() -> tuple[str, ...]:
    """Names of the passes that can be left out, in order."""
    return tuple(name for name in map(pass_name, PASSES) if name not in OBLIGATORY)


def passes_without(names: Sequence[str]) -> tuple[Pass, ...]:
    """PASSES but those named. Raises: ConfigError for a name that is no pass, or an obligatory one."""
    for name in names:
        if name in OBLIGATORY:
            raise ConfigError(f"without={name}: this pass cannot be left out: {OBLIGATORY[name]}")
        if name not in optional_passes():
            raise ConfigError(f"without={name!r} names no pass; choose among {', '.join(optional_passes())}")
    return tuple(run for run in PASSES if pass_name(run) not in names)


def adapter_passes(passes: Sequence[Pass], max_rank: int) -> tuple[Pass, ...]:
    """passes for a program whose linears have adapters, see passes/add_adapters.py."""
    fusing = PASSES[PASSES.index(last_layer_rows.run) + 1 :]
    before = [run for run in passes if run not in fusing]
    return (*before, partial(add_adapters.run, max_rank=max_rank), *(run for run in passes if run in fusing))


def passes_for(abilities: Collection[str], passes: Sequence[Pass]) -> tuple[Pass, ...]:
    """passes, and those of ABLE_PASSES that a backend's abilities allow, each behind its own."""
    able = [(before, run) for ability, before, run in ABLE_PASSES if ability in abilities]
    return tuple(run for each in passes for run in (each, *(more for before, more in able if before is each)))


def passes_of(program: Program) -> tuple[Pass, ...]:
    """The passes that made a program, from its report."""
    names = {record.name for record in program.report}
    every = passes_for([ability for ability, _, _ in ABLE_PASSES], PASSES)
    return tuple(run for run in every if pass_name(run) in names)


def compile_graph(
    graph: Graph,
    catalog: KernelCatalog,
    *,
    maxima: Mapping[str, int],
    block_size: int,
    max_positions: int,
    part: shard.Part | None = None,
    passes: Sequence[Pass] = PASSES,
    kv_dtype: str | None = None,
    has_block_groups: bool = False,
    packings: Mapping[str, str] | None = None,
    cache: KVLayout | None = None,
    keeps_linears: bool = False,
) -> Program:
    """Compile a model's graph for a backend. The graph is not changed.

    Args:
        catalog: the backend's kernels.
        maxima: most rows of T, R and G in one step; activations are planned for them.
        block_size: KV positions of one block.
        max_positions: rows of the rotation tables: the longest sequence.
        part: compile for one of several ranks; None: for one that is alone, each sum one chain.
        passes: rewrites to run, in order; whoever measures leaves some out, see passes_without().
        kv_dtype: type of the KV cache; None: that of the queries.
        has_block_groups: layers with a window have KV blocks of their own, which are let go behind it.
        packings: of constants that another program has in memory, by name: they are read so where a kernel can.
        cache: of another program, whose layers this one's read; None: it has one of its own.
        keeps_linears: none becomes an expert's matrix: adapters may be of it.

    Returns: the program, with a report of every pass.
    Raises: UnsupportedModel naming the node that no kernel performs, and why no pass could fuse it.
    Cost: O(nodes): about 0.03 s for 24 layers; no weight is touched.
    """
    if set(maxima) != {"T", "R", "G"} or min(maxima.values()) < 1 or block_size < 1 or max_positions < 1:
        raise InvariantError(
            f"maxima {dict(maxima)}, block_size {block_size}, max_positions {max_positions}: wanted T, R, G, all >= 1"
        )
    maxima = {**maxima, "S": maxima["R"] + maxima["G"]}
    check_graph(graph, reads_cache=cache is not None)
    passes = passes_for(catalog.abilities - {SHARED_EXPERTS} if keeps_linears else catalog.abilities, passes)
    fused, records = run_passes(graph, passes if part is None else (plain_scales.run, shard_pass(part), *passes))
    if fused.top_k:
        maxima["P"] = maxima["T"] * fused.top_k
    require_families(fused, records)
    check_graph(fused, reads_cache=cache is not None)
    kernels, selected = select_kernels(fused, catalog, packings)
    layouts, laid_out = plan_layouts(fused, kernels, max_positions)
    memory, planned = plan_memory(fused, maxima)
    calls, met = place_barriers(make_calls(fused, kernels, layouts, memory), memory, maxima)
    done = [*records, selected, laid_out, planned, met]
    kv = kv_layout(fused, block_size, kv_dtype) if cache is None else cache
    if has_block_groups and cache is None:
        kv, grouped = group_blocks(fused, kv, max_positions)
        done.append(grouped)
    return emit(fused, calls, layouts, memory, kv, maxima, done)


def shard_pass(part: shard.Part) -> Pass:
    """The pass that cuts a graph among ranks. Before all others but plain_scales: nests are too long to be cut."""
    return partial(shard.run, part=part)


def run_passes(
    graph: Graph,
    passes: Sequence[Pass] = PASSES,
    after: Callable[[Graph, PassRecord], None] | None = None,
) -> tuple[Graph, list[PassRecord]]:
    """Run passes over a copy of a graph; after is shown the graph behind each, as tests and inspect wish."""
    graph = copy_graph(graph)
    records = []
    for run in passes:
        record = run(graph)
        records.append(record)
        if after is not None:
            after(graph, record)
    return graph, records


def require_families(graph: Graph, records: Sequence[PassRecord]) -> None:
    """Raises: UnsupportedModel when an op is left that belongs to no call family."""
    for node in graph.nodes:
        if node.family is None:
            name = label(node)
            reasons = [f"{r.name}: {s.reason}" for r in records for s in r.refusals if name in s.labels]
            why = "; ".join(reasons) or f"no pass takes {node.op} where it stands"
            raise UnsupportedModel(f"{name} cannot be compiled: {why}. The graph must have one of the known shapes.")
