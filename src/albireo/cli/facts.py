"""The facts of a summary: what a model or a build is, the program it becomes, the memory that takes.

Used by inspect.py. Reads the configuration and the headers of the weights, not the weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from albireo.api.machine.device import Device
from albireo.api.machine.memory import OVERHEAD_BYTES, MemoryPlan
from albireo.api.machine.tuning import TableInForce
from albireo.api.media.hearing import open_hearing
from albireo.api.media.perception import SEES, TEXT_ONLY, Ear, Perception, Vision, is_hearing, open_perception
from albireo.api.sources.engine_source import EngineSource
from albireo.api.sources.overrides import said
from albireo.api.sources.source import ModelSource
from albireo.api.tokenizer import chat_templates
from albireo.artifact.layout import FORMAT, MAJOR
from albireo.bench.image_cost import image_figures
from albireo.bench.sound_cost import sound_figures
from albireo.bench.video_cost import video_figures, video_text
from albireo.cli.terminal import count, size
from albireo.config import EngineConfig
from albireo.dtypes import kv_cache_dtype
from albireo.engine.block_tables import blocks_needed
from albireo.errors import ModelError
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.graph.show import totals
from albireo.graph.tuning import BUCKET_NAMES
from albireo.json_file import read_json
from albireo.models import open_checkpoint
from albireo.models.checkpoint.weights import weight_files
from albireo.models.config import ModelConfig
from albireo.models.settings.context import default_context
from albireo.models.settings.text_part import speaking_parts

#: A line of the summary: what, and the words.
Fact = tuple[str, str]


def model_facts(source: ModelSource, graph: Graph, engine: EngineConfig) -> Iterator[Fact]:
    """What a model or a build is. Raises: ModelError, after the facts before it, where files do not fit the graph."""
    config = source.model_config
    yield "model", str(source.directory)
    if isinstance(source, EngineSource):
        yield from _manifest_lines(source)
    yield "architecture", _architecture(config)
    yield (
        "attention",
        "none"
        if not config.kv_shapes
        else f"{config.num_heads} heads of {config.head_dim}, {config.num_kv_heads} for keys and values"
        f"{_windows(config)}{_without_windows(config)}, {_positions(config, graph)}",
    )
    tied = ", embeddings tied" if config.tie_word_embeddings else ""
    yield "parameters", f"{count(_num_parameters(graph))} ({_num_parameters(graph):,}){tied}"
    if not isinstance(source, EngineSource):
        yield "on disk", _on_disk(source.directory, graph)
    kv_dtype = kv_cache_dtype(engine.kv_cache_dtype) or config.dtype
    yield (
        "KV cache",
        f"{_kv_bytes_per_token(config, kv_dtype):,} B per token, {kv_dtype}" if config.kv_shapes else "none",
    )
    if config.state_bytes:
        yield "state", f"{config.state_bytes:,} B per sequence, float32"
    yield "context", f"{default_context(config):,} tokens"
    yield "text", _text(source.tokenizer_directory, config)
    if config.pooling is not None:
        rule = source.pooling_rule
        pooled = "" if rule.pooling_type == "all" else f", pooled by {rule.pooling_type}"
        yield "gives", f"{rule.says.removeprefix('gives ')}{pooled}"


def media_facts(config: EngineConfig, source: ModelSource, device: Device) -> list[Fact]:
    """What becomes of a picture or a sound in a prompt, or why none is read; nothing of a model of text."""
    vision = open_perception(config, source, device)
    if vision == TEXT_ONLY:
        return []
    if is_hearing(source):
        return [("sounds", _sounds(vision, device))]
    figures, ears = image_figures(vision), []
    if isinstance(vision, Ear):
        ears = [("sounds", _sounds(vision, device))]
    elif isinstance(vision, Vision) and vision.ear != SEES:
        ears = [("sounds", _sounds(vision.ear, device))]
    if figures["problem"]:
        return [("images", f"not read: {figures['problem']}"), *ears]
    assert isinstance(vision, Vision), "there is no problem"
    weights, (width, height) = size(replace(vision, ear=SEES).weight_bytes(device)), figures["picture"]
    tiles = f"{figures['tiles']} tile{'s' * (figures['tiles'] != 1)} of {figures['patches']:,} patches in all"
    text = (
        f"tower and projector {weights}; a picture of {width:,} x {height:,} is {figures['tokens']:,} tokens, {tiles}"
    )
    videos = video_figures(vision)
    return [("images", text), *([] if videos is None else [("videos", video_text(videos))]), *ears, *_speech(source)]


def _speech(source: ModelSource) -> list[Fact]:
    """Of a model that speaks what is left where it lies."""
    parts = speaking_parts(read_json(source.config_directory / "config.json"))
    return [("speech", f"not computed: {', '.join(parts)} left aside; it answers in text")] if parts else []


def _sounds(perception: Perception | str, device: Device) -> str:
    figures = sound_figures(perception)
    if isinstance(perception, str) or figures is None:
        return f"not read: {perception}"
    weights, tiles = size(perception.weight_bytes(device)), figures["tiles"]
    return (
        f"tower and projector {weights}; a sound of {figures['seconds']} s is {figures['tokens']:,} tokens, {tiles} "
        f"tile{'s' * (tiles != 1)}"
    )


def hearing_facts(config: EngineConfig, source: ModelSource, device: Device, program: Program) -> Iterator[Fact]:
    """What hears; nothing of another model."""
    hearing = open_hearing(config, source, device, program)
    if hearing is not None:
        weights, facts = size(hearing.weight_bytes(device)), hearing.facts
        text = f"encoder and what listens to it {weights}; a sound of up to {facts['seconds']} s"
        yield "hears", f"{text} is {facts['positions']:,} token{'s' * (facts['positions'] != 1)}"


def _positions(config: ModelConfig, graph: Graph) -> str:
    """How the model knows where tokens are, and which of them each sees."""
    ids = [node.inputs["ids"].name for node in graph.nodes if node.op == "embed"]
    told = "learned positions"
    if "positions" not in ids:
        told = f"rope {config.rope.rope_type} (theta {config.rope.theta:g})"
    if config.blocks.sees_prompts:
        return f"{told}, tokens of a prompt see each other"
    return told + (", all tokens see each other" if config.blocks.sees_both_ways else "")


def plan_facts(config: EngineConfig, program: Program, memory: MemoryPlan) -> list[Fact]:
    """What would run, and the memory that it would take under these settings."""
    beside = memory.adapter_bytes + memory.state_bytes + memory.arena_bytes + OVERHEAD_BYTES
    fixed = memory.weight_bytes + beside + memory.kv_bytes
    adapters = f"adapters {size(memory.adapter_bytes)}, " if memory.adapter_bytes else ""
    adapters += f"states of sequences {size(memory.state_bytes)}, " if memory.state_bytes else ""
    return [
        *program_facts(program),
        (
            "memory",
            f"weights {size(memory.weight_bytes)}, {adapters}activations {size(memory.arena_bytes)}, "
            f"KV cache {size(memory.kv_bytes)}, beside them {size(OVERHEAD_BYTES)}: {size(fixed)}",
        ),
        (
            "",
            f"of {size(memory.budget_bytes)} allowed (memory_utilization={config.memory_utilization}, "
            f"machine {size(memory.machine_bytes)})",
        ),
        ("KV blocks", _blocks(config, memory)),
    ]


def program_facts(program: Program) -> list[Fact]:
    """What would run, whether there is memory for it or not."""
    return [
        ("program", str(totals(program))),
        ("kernels", ", ".join(dict.fromkeys(call.kernel for call in program.calls))),
    ]


def rank_facts(programs: Sequence[Program], memory: MemoryPlan, device: Device) -> list[Fact]:
    """How many ranks there are, and how much memory the one has that needs most; nothing of one alone."""
    if len(programs) == 1:
        return []
    num_blocks, num_slots = memory.num_blocks, memory.num_state_slots
    found = []
    for program in programs:
        kv, states = num_blocks * device.block_bytes(program.kv), num_slots * program.states.slot_bytes
        found.append((device.weight_bytes(program), states, program.arena_bytes, kv))
    weights, states, arena, kv = max(found, key=sum)
    kept = f"states of sequences {size(states)}, " if states else ""
    return [
        ("ranks", f"{len(programs)}; the program is of one, the memory of all"),
        ("", f"of one at most: weights {size(weights)}, {kept}activations {size(arena)}, KV cache {size(kv)}"),
    ]


def _blocks(config: EngineConfig, memory: MemoryPlan) -> str:
    num, block_size = memory.num_blocks - 1, config.block_size
    longest = f"sequences of up to {memory.max_model_len:,}"
    if memory.windows == (None,):
        return f"{num:,} of {block_size} tokens: {num * block_size:,} tokens, {longest}"
    each = blocks_needed(memory.max_model_len, block_size, memory.windows, config.step_limits.max_num_batched_tokens)
    windows = ", ".join(f"{window:,}" for window in sorted({window for window in memory.windows if window}))
    groups = f"one of {len(memory.windows)} groups of layers" if len(memory.windows) > 1 else "all layers"
    return f"{num:,} of {block_size} tokens of {groups}, windows of {windows}: {longest}, one in {each:,} blocks"


def tuning_facts(tables: Sequence[TableInForce]) -> list[Fact]:
    """Each table in force, and what it changes. Nothing of it changes a bit of the results."""
    lines = []
    for table in tables:
        if table.use.used:
            changed = [f"{e.key} at {BUCKET_NAMES[e.bucket]} rows" for e in table.use.changed]
            more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
            what = f": {', '.join(changed[:2])}{more}" if changed else ""
            lines.append(f"{table.path}: {len(changed)} of {len(table.use.used)} choices are not the defaults{what}")
    return [("tuning", text) for text in lines or ["defaults; albireo tune measures them on this machine"]]


def _num_parameters(graph: Graph) -> int:
    """Elements of all weights; a tied embedding counts once."""
    return sum(math.prod(int(dim) for dim in value.type.dims) for value in graph.constants.values())


def _kv_bytes_per_token(config: ModelConfig, dtype: str) -> int:
    """Bytes of KV cache of a type a token takes, over all layers; heads are padded as they are stored."""
    shapes, has_values, size = config.kv_shapes, config.keeps_values, max(1, *config.kv_every, 1)
    alone = tuple(range(len(config.cached_layers), len(shapes))) if has_values else ()
    layout = KVLayout(len(shapes), *shapes[0], dtype, size, has_values, shapes, keys_alone=alone, every=config.kv_every)
    return layout.position_bytes


def _manifest_lines(source: EngineSource) -> Iterator[Fact]:
    """What manifest.json and program.json say of the build."""
    manifest, program = source.files.manifest, source.files.program
    yield "format", f"{FORMAT} {MAJOR}.{manifest.minor}, created by albireo {manifest.version}"
    yield "built for", ", ".join(f"{name} {_option(value)}" for name, value in asdict(manifest.options).items())
    for name, entry in manifest.source.items():
        yield "from", f"{name}, {size(entry.size)}, sha256 {entry.sha256[:16]}"
    total = sum(entry.size for entry in manifest.files.values())
    yield "on disk", f"{size(total)} in {len(manifest.files) + 1} files, {len(source.files.stored)} constants"
    for name, entry in manifest.files.items():
        yield "", f"{name:<34} {size(entry.size):>10}  sha256 {entry.sha256[:16]}"
    yield "built kernels", ", ".join(dict.fromkeys(call.kernel for call in program.calls))


def _option(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "nothing"
    if isinstance(value, Mapping):
        return said(value)
    if value is None or isinstance(value, bool):
        return "yes" if value else "none" if value is None else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _architecture(config: ModelConfig) -> str:
    return (
        f"{config.model_type}: {config.num_layers} layers, width {config.hidden_size}, FFN {config.intermediate_size}, "
        f"vocabulary {config.vocab_size:,}, computed in {config.dtype}"
    )


def _windows(config: ModelConfig) -> str:
    kinds = Counter(window for window in config.windows if window is not None)
    return "".join(f", window {window} in {layers} layers" for window, layers in kinds.items())


def _without_windows(config: ModelConfig) -> str:
    """Heads of layers without a window, where those have heads of their own; and entries, or keys, of several
    positions."""
    others = set(config.kv_shapes[: len(config.cached_layers)]) - {(config.num_kv_heads, config.head_dim)}
    heads = (f", elsewhere of {dim}, {heads} for keys and values" for heads, dim in sorted(others))
    pooled = () if config.blocks.pooled is None else config.blocks.pooled.every
    kinds = Counter(every for every in pooled if every)
    entries = (f", entries of {every} positions in {layers} layers" for every, layers in sorted(kinds.items()))
    index, chosen = config.blocks.index, ""
    if index is not None and index.every > 1 and config.is_choosing:
        chosen = f", positions chosen {index.every} together in {len(config.cached_layers)} layers"
    return "".join((*heads, *entries, chosen))


def _on_disk(directory: Path, graph: Graph) -> str:
    """Size of the weight files, after holding their headers against the graph."""
    files = weight_files(directory)
    if not files:
        return "no weights in this directory"
    with open_checkpoint(directory, graph) as checkpoint:
        total = sum(file.stat().st_size for file in files)
        names = checkpoint.names
        dtypes = sorted({checkpoint.kind(name) for name in names})
        return (
            f"{size(total)} in {len(files)} file{'s' * (len(files) > 1)}: {len(names)} tensors of {', '.join(dtypes)}"
        )


def _text(directory: Path, config: ModelConfig) -> str:
    try:
        templates = chat_templates(directory)
    except ModelError as error:
        return f"no usable tokenizer: {error}"
    if config.pooling is not None:
        return "is read, and none is written"
    if config.blocks.sound_positions:
        return "is what it hears: transcribe, not generate or chat"
    return f"chat template {', '.join(sorted(templates))}" if templates else "no chat template: generate, not chat"
