"""Show what a model or a build is: sizes, memory, its graph, and the program it becomes.

Reads the configuration and the headers of the weights, not the weights.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from albireo.api.devices import planning_device
from albireo.api.load import plan
from albireo.api.locate import locate_model
from albireo.api.memory import OVERHEAD_BYTES, MemoryPlan
from albireo.api.source import EngineSource, ModelSource, open_source
from albireo.api.tokenizer import open_tokenizer
from albireo.api.tuning import TableInForce, tuned
from albireo.artifact.layout import FORMAT, MAJOR
from albireo.backends.backend import ExplainedCatalog
from albireo.cli.options import engine_options
from albireo.cli.terminal import count, plain, row, size
from albireo.config import EngineConfig
from albireo.dtypes import kv_cache_dtype
from albireo.errors import ConfigError, EngineError, ModelError
from albireo.graph.node import Graph
from albireo.graph.program import KVLayout, Program
from albireo.graph.show import show_graph, show_program, show_report, totals
from albireo.graph.tuning import BUCKET_NAMES
from albireo.inspect.arena import arena_lines
from albireo.inspect.diff import diff_lines, weights_are_compared
from albireo.inspect.files import picture_path, write_picture
from albireo.inspect.kernels import kernel_lines
from albireo.inspect.layer_picture import layer_picture
from albireo.inspect.page import page
from albireo.inspect.side import open_sides
from albireo.inspect.story import Explained, explain, layer_story
from albireo.models import open_checkpoint
from albireo.models.config import ModelConfig
from albireo.models.gguf.tensors import is_gguf
from albireo.models.weights import weight_files
from albireo.text.tokenizer_files import read_tokenizer_files

#: A line of the summary: what, and the words.
Fact = tuple[str, str]


@click.command()
@click.argument("model", required=False)
@click.option(
    "--graph",
    "graph_to",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="The graph op by op as text; into FILE.svg, the picture of one layer before and after fusion; into FILE.html, "
    "a page with that picture, the passes, kernels and memory.",
)
@click.option("--layer", type=int, help="The layer that a picture shows.  [default: one in the middle]")
@click.option("--program", "shows_program", is_flag=True, help="The program: the calls that run, and their buffers.")
@click.option("--report", "shows_report", is_flag=True, help="What each compiler pass did, and where it did not fire.")
@click.option(
    "--kernels", "shows_kernels", is_flag=True, help="The kernel of each call, and how it treats few rows and many."
)
@click.option(
    "--arena", "shows_arena", is_flag=True, help="The memory map of activations: offsets, bytes and lifetimes."
)
@click.option("--full", is_flag=True, help="Every layer and every firing, also where they are alike.")
@click.option(
    "--diff",
    "other",
    metavar="OTHER",
    help="What differs between MODEL and OTHER, engine directories or checkpoints. Exit code 0: nothing, 1: something, "
    "2: they could not be compared.",
)
@engine_options(without=("tokenizer", "skip_tokenizer_init", "generation_config", "seed", "max_logprobs"))
def command(
    model: str | None,
    graph_to: str | None,
    layer: int | None,
    shows_program: bool,
    shows_report: bool,
    shows_kernels: bool,
    shows_arena: bool,
    full: bool,
    other: str | None,
    engine: dict[str, Any],
) -> None:
    """Show what a model or a build is: sizes, memory, its graph, and the program it becomes.

    MODEL is a directory or a hub name; the bundled model when left out. Without a flag: a summary, which ends with the
    memory that loading would take under the given settings.
    """
    flags = [graph_to == "-", shows_program, shows_report, shows_kernels, shows_arena]
    if other is not None:
        is_alone = graph_to is None and layer is None and not any(flags) and not full
        sys.exit(_diff(model, other, engine, is_alone))
    target = None if graph_to in (None, "-") else picture_path(str(graph_to))
    if layer is not None and target is None:
        raise ConfigError("--layer is of pictures; add --graph FILE.svg or FILE.html")
    config = EngineConfig.from_kwargs(model=model, **engine)
    source = open_source(locate_model(model), config)
    config = source.adopt(config)
    device = planning_device(config)
    graph = source.graph(config.max_model_len or source.default_model_len)
    if target is None and not any(flags):
        # Line by line: a model that does not fit still gets its summary before the error.
        for fact in _summary(source, graph, config):
            click.echo(plain(row(*fact)))
        program, memory = plan(config, source, device)
        if len(source.parts) > 1:
            click.echo(row("ranks", f"{len(source.parts)}; the program is of one, the memory of all"))
        for fact in _plan_lines(config, program, memory):
            click.echo(plain(row(*fact)))
        if device.name == "cpu":
            for line in _tuning_lines(tuned(program, source.directory, config.num_threads)[1]):
                click.echo(line)
        return
    parts = [show_graph(graph, fold=not full, expand=full)] if graph_to == "-" else []
    if target is not None or any(flags[1:]):
        program, memory = plan(config, source, device)
        if device.name == "cpu":
            program, _ = tuned(program, source.directory, config.num_threads)
        parts += [show_program(program, fold=not full)] if shows_program else []
        parts += [show_report(program, every=full)] if shows_report else []
        parts += ["\n".join(kernel_lines(program, device.catalog()))] if shows_kernels else []
        parts += ["\n".join(arena_lines(program))] if shows_arena else []
        if target is not None:
            facts = [*_summary(source, graph, config), *_plan_lines(config, program, memory)]
            parts.append(_draw(target, explain(graph, program), layer, source, facts, device.catalog()))
    click.echo(plain("\n\n".join(parts)))


def _diff(model: str | None, other: str, engine: dict[str, Any], is_alone: bool) -> int:
    """Print what differs. Returns: the exit code, as diff(1) has them."""
    try:
        if not is_alone:
            raise ConfigError("--diff compares, and shows nothing else; leave the other flags out")
        one, two = open_sides(model, other, engine)
        lines = diff_lines(one, two)
    except EngineError as error:
        click.echo(f"error: {error}", err=True)
        return 2
    aside = "" if weights_are_compared(one, two) else "; the weights of a checkpoint are not compared"
    click.echo(plain("\n".join(lines)) if lines else f"no difference{aside}")
    return 1 if lines else 0


def _draw(
    target: Path,
    explained: Explained,
    layer: int | None,
    source: ModelSource,
    facts: Sequence[Fact],
    catalog: ExplainedCatalog,
) -> str:
    """Write the picture or the page. Returns: what was written, for the terminal."""
    story, model = layer_story(explained, layer), source.model_config.model_type
    if target.suffix == ".svg":
        text = layer_picture(explained, story, model)
    else:
        text = page(explained, story, catalog, facts, source.directory.name, model)
    write_picture(target, text)
    return (
        f"{target}: layer {story.layer}, {story.num_ops} ops -> {len(story.groups)} calls, "
        f"{story.before_bytes:,} B -> {story.after_bytes:,} B of activations a token"
    )


def num_parameters(graph: Graph) -> int:
    """Elements of all weights; a tied embedding counts once."""
    return sum(math.prod(int(dim) for dim in value.type.dims) for value in graph.constants.values())


def kv_bytes_per_token(config: ModelConfig, dtype: str) -> int:
    """Bytes of KV cache of a type a token takes, over all layers; heads are padded as they are stored."""
    kv = KVLayout(config.num_layers, config.num_kv_heads, config.head_dim, dtype, block_size=1)
    return kv.num_layers * kv.position_bytes


def _summary(source: ModelSource, graph: Graph, engine: EngineConfig) -> Iterator[Fact]:
    config = source.model_config
    yield "model", str(source.directory)
    if isinstance(source, EngineSource):
        yield from _manifest_lines(source)
    yield "architecture", _architecture(config)
    yield (
        "attention",
        f"{config.num_heads} heads of {config.head_dim}, {config.num_kv_heads} for keys and values"
        f"{_windows(config)}, rope {config.rope.rope_type} (theta {config.rope.theta:g})",
    )
    tied = ", embeddings tied" if config.tie_word_embeddings else ""
    yield "parameters", f"{count(num_parameters(graph))} ({num_parameters(graph):,}){tied}"
    if not isinstance(source, EngineSource):
        yield "on disk", _on_disk(source.directory, graph)
    kv_dtype = kv_cache_dtype(engine.kv_cache_dtype) or config.dtype
    yield "KV cache", f"{kv_bytes_per_token(config, kv_dtype):,} B per token, {kv_dtype}"
    yield "context", f"{config.max_position_embeddings:,} tokens"
    yield "text", _text(source.tokenizer_directory)


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


def _templates(directory: Path) -> dict[str, str]:
    if is_gguf(directory):
        return open_tokenizer(directory).chat_templates
    return read_tokenizer_files(directory).chat_templates


def _text(directory: Path) -> str:
    try:
        templates = _templates(directory)
    except ModelError as error:
        return f"no usable tokenizer: {error}"
    return f"chat template {', '.join(sorted(templates))}" if templates else "no chat template: generate, not chat"


def _plan_lines(config: EngineConfig, program: Program, memory: MemoryPlan) -> list[Fact]:
    fixed = memory.weight_bytes + memory.arena_bytes + OVERHEAD_BYTES + memory.kv_bytes
    tokens = (memory.num_blocks - 1) * config.block_size
    return [
        ("program", str(totals(program))),
        ("kernels", ", ".join(dict.fromkeys(call.kernel for call in program.calls))),
        (
            "memory",
            f"weights {size(memory.weight_bytes)}, activations {size(memory.arena_bytes)}, "
            f"KV cache {size(memory.kv_bytes)}, beside them {size(OVERHEAD_BYTES)}: {size(fixed)}",
        ),
        (
            "",
            f"of {size(memory.budget_bytes)} allowed (memory_utilization={config.memory_utilization}, "
            f"machine {size(memory.machine_bytes)})",
        ),
        (
            "KV blocks",
            f"{memory.num_blocks - 1:,} of {config.block_size} tokens: {tokens:,} tokens, "
            f"sequences of up to {memory.max_model_len:,}",
        ),
    ]


def _tuning_lines(tables: Sequence[TableInForce]) -> list[str]:
    """Each table in force, and what it changes. Nothing of it changes a bit of the results."""
    lines = []
    for table in tables:
        if table.use.used:
            changed = [f"{e.key} at {BUCKET_NAMES[e.bucket]} rows" for e in table.use.changed]
            more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
            what = f": {', '.join(changed[:2])}{more}" if changed else ""
            lines.append(f"{table.path}: {len(changed)} of {len(table.use.used)} choices are not the defaults{what}")
    return [row("tuning", text) for text in lines or ["defaults; albireo tune measures them on this machine"]]
