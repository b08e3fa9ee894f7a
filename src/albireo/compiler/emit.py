"""Fused graph + kernels + layouts + memory -> Program.

The last stage of pipeline.py: everything is decided, here it is written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from albireo.backends.backend import Variant
from albireo.compiler.layouts import Layouts
from albireo.compiler.memory_plan import MemoryPlan
from albireo.compiler.rewrite import label
from albireo.compiler.select import call_attrs
from albireo.dtypes import KV_CODES
from albireo.errors import UnsupportedModel
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph, Node, Value
from albireo.graph.program import Call, Program, StateLayout
from albireo.graph.program_spec import FAMILIES, MEETINGS, accesses, conflict
from albireo.graph.report import PassRecord
from albireo.graph.spec import symbol_rows

BARRIER_WHY = "threads meet only where one reads or overwrites what another wrote"
EMIT_WHY = "a step is one walk over a flat list"


def kv_layout(graph: Graph, block_size: int, kv_dtype: str | None = None) -> KVLayout:
    """Shape of the cache, from the nodes that write it; its element type is that of the queries that read it, unless
    another is given. Of a graph without attention, as a vision tower's projector and a model of states alone
    are: no layers.

    Raises: UnsupportedModel when queries differ in type, or layer numbers have holes, or what is written is rounded to
        another type before.
    """
    writers = [node for node in graph.nodes if any(v.type.dtype == "kv" for v in node.outputs)]
    dtypes = {node.inputs["q"].type.dtype for node in graph.nodes if node.family in ("choose_keys", "attention")}
    token_ids = graph.inputs.get("token_ids")
    reads_tokens = any(value is token_ids for node in graph.nodes for value in node.inputs.values())
    if not dtypes and not writers and (graph.recurrent or not reads_tokens):
        if graph.recurrent and kv_dtype in KV_CODES:
            raise UnsupportedModel(
                f"a KV cache of {kv_dtype}: no layer of this model has attention, so there is none; leave "
                "kv_cache_dtype out"
            )
        return KVLayout(0, 0, 0, kv_dtype or "float32", block_size)
    if len(dtypes) != 1 or not writers:
        raise UnsupportedModel(f"attention reads queries of {len(dtypes)} types, one is supported: {sorted(dtypes)}")
    (dtype,), has_values = dtypes, any(map(_has_values, writers))
    chosen_by = {int(node.attrs["layer"]) for node in graph.nodes if node.family == "choose_keys"}
    alone = {int(node.attrs["layer"]) for node in writers if not _has_values(node)} if has_values else set[int]()
    if not alone <= chosen_by:
        raise UnsupportedModel("some layers keep keys and values and others keys alone, one is supported")
    of_layer = {int(node.attrs["layer"]): node for node in writers}
    layers = sorted(of_layer)
    writers = [of_layer[layer] for layer in layers]
    if layers != list(range(len(layers))):
        raise UnsupportedModel(f"KV layers are numbered {layers}; wanted 0 to {len(layers) - 1}, each once")
    if not has_values and kv_dtype in KV_CODES:
        raise UnsupportedModel(
            f"a KV cache of {kv_dtype}: values of this model are channels of its keys, which are not kept as codes; "
            "leave kv_cache_dtype out"
        )
    if any("chosen" in node.inputs for node in graph.nodes) and kv_dtype in KV_CODES:
        raise UnsupportedModel(
            f"a KV cache of {kv_dtype}: positions of this model choose which others they see, and codes are not chosen "
            "from; leave kv_cache_dtype out"
        )
    for node in writers:
        rounded = _rounded_before(node)
        if rounded and kv_dtype not in (None, rounded):
            raise UnsupportedModel(
                f"{label(node)}: keys and values are rounded to {rounded} before they are stored; a KV cache of "
                f"{kv_dtype} would round them twice, leave kv_cache_dtype out"
            )
    shapes = tuple((int(node.attrs["num_kv_heads"]), int(node.attrs["head_dim"])) for node in writers)
    differing = shapes if len(set(shapes)) > 1 or alone else ()
    every = tuple(int(node.attrs.get("every", 1)) for node in writers)
    layout = KVLayout(len(layers), *shapes[0], kv_dtype or dtype, block_size, has_values, differing)
    layout = replace(layout, keys_alone=tuple(sorted(alone)), every=every if max(every) > 1 else ())
    layout.check()
    return layout


def _has_values(writer: Node) -> bool:
    """Whether a call writes values beside keys; only one that writes what it is given can leave them out."""
    return writer.family != "kv_write" or "v" in writer.inputs


def state_layout(graph: Graph) -> StateLayout:
    """Shapes of what each sequence keeps beside the KV cache, from the nodes that keep it."""
    return StateLayout(tuple(_state_shape(node) for node in graph.recurrent))


def _state_shape(node: Node) -> tuple[int, ...]:
    if node.family == "causal_conv":
        channels, width = node.inputs["weight"].type.dims
        return int(width) - 1, int(channels)
    if node.family == "pool_rows":
        return 3 if node.attrs["series"] == 1 else 9, int(node.output.type.dims[1])
    if node.family == "selective_scan":
        channels, keys = node.inputs["a_log"].type.dims
        return int(keys), int(channels)
    return tuple(int(node.attrs[name]) for name in ("num_v_heads", "k_dim", "v_dim"))


def _rounded_before(writer: Node) -> str | None:
    """The type that a fused writer's body gives keys or values before they are stored; None where it is float32."""
    writes = [node for node in writer.body.nodes if node.op == "kv_write"] if writer.body else []
    types = {node.inputs[r].type.dtype for node in writes for r in ("k", "v") if r in node.inputs} - {"float32"}
    return min(types, default=None)


def make_calls(graph: Graph, kernels: Mapping[Node, Variant], layouts: Layouts, memory: MemoryPlan) -> tuple[Call, ...]:
    """A call for each node, barriers still to be decided."""
    names = {value: name for name, value in graph.inputs.items()} | memory.names
    return tuple(_call(node, kernels[node], layouts.args[node], names) for node in graph.nodes)


def place_barriers(
    calls: Sequence[Call], memory: MemoryPlan, maxima: Mapping[str, int]
) -> tuple[tuple[Call, ...], PassRecord]:
    """A barrier after each call that a later one may not overtake, unless one in between is sure to be met.

    A call with zero rows is skipped with its barrier, so only a call on T rows, or on the same rows, is sure.
    """
    record = PassRecord("plan_barriers", BARRIER_WHY, "exact", len(calls), len(calls))
    touched = [accesses(call, memory.buffers, maxima) for call in calls]
    barriers = [False] * len(calls)
    for i in reversed(range(len(calls))):
        if calls[i].family in MEETINGS:  # other ranks read what it reads, until all have met behind it
            barriers[i] = True
            continue
        for j in range(i + 1, len(calls)):
            if conflict(touched[i], touched[j]):
                barriers[i] = True
                break
            if barriers[j] and calls[j].rows in ("T", calls[i].rows):
                break
    record.notes.append(f"{sum(barriers)} barriers in {len(calls)} calls")
    return tuple(replace(call, barrier=b) for call, b in zip(calls, barriers, strict=True)), record


def emit(
    graph: Graph,
    calls: tuple[Call, ...],
    layouts: Layouts,
    memory: MemoryPlan,
    kv: KVLayout,
    maxima: Mapping[str, int],
    report: Sequence[PassRecord],
) -> Program:
    """The finished program; outputs are the graph's, without the KV state."""
    num_base_ops = report[0].ops_before
    record = PassRecord("emit", EMIT_WHY, "exact", len(graph.nodes), len(calls))
    record.notes.append(f"{num_base_ops} ops became {len(calls)} calls")
    return Program(
        calls=calls,
        buffers=memory.buffers,
        constants=layouts.constants,
        kv=kv,
        maxima=dict(maxima),
        arena_bytes=memory.arena_bytes,
        states=state_layout(graph),
        outputs={name: memory.names[value] for name, value in graph.outputs.items() if value in memory.names},
        report=(*report, record),
    )


def _call(node: Node, kernel: Variant, constants: Mapping[str, str], names: Mapping[Value, str]) -> Call:
    family = FAMILIES[str(node.family)]
    args = {}
    for role in family.inputs:
        if role in constants:
            args[role] = constants[role]
        elif role in node.inputs:
            args[role] = names[node.inputs[role]]
    activations = [value for value in node.outputs if value.type.dtype != "kv"]
    if not (family.fewest or len(family.outputs)) <= len(activations) <= len(family.outputs):
        raise UnsupportedModel(f"{label(node)}: has {len(activations)} results, {node.family} has {family.outputs}")
    args |= {role: names[value] for role, value in zip(family.outputs, activations, strict=False)}
    rows = symbol_rows(activations[0] if activations else node.inputs["k"])
    return Call(str(node.family), kernel.identity, args, call_attrs(node), rows, kernel.split, False, node.origin)
