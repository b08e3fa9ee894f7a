"""Show what a model is: sizes, memory, its graph and the program it becomes.

Reads the configuration and the headers of the weights, not the weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from albireo.api.load import plan
from albireo.api.locate import locate_model
from albireo.api.memory import OVERHEAD_BYTES, MemoryPlan
from albireo.api.source import EngineSource, ModelSource, open_source
from albireo.api.tuning import TableInForce, tuned
from albireo.cli.options import engine_options
from albireo.cli.terminal import count, row, size
from albireo.config import EngineConfig
from albireo.dtypes import itemsize
from albireo.errors import ModelError
from albireo.graph.node import Graph
from albireo.graph.program import KVLayout, Program
from albireo.graph.show import show_graph, show_program, show_report, totals
from albireo.graph.tuning import BUCKET_NAMES
from albireo.models import open_checkpoint
from albireo.models.config import ModelConfig
from albireo.text.tokenizer_files import read_tokenizer_files


@click.command()
@click.argument("model", required=False)
@click.option("--graph", "shows_graph", is_flag=True, help="The graph: what is to be computed, op by op.")
@click.option("--program", "shows_program", is_flag=True, help="The program: the calls that run, and their buffers.")
@click.option("--report", "shows_report", is_flag=True, help="What each compiler pass did, and where it did not fire.")
@click.option("--full", is_flag=True, help="Every layer and every firing, also where they are alike.")
@engine_options(without=("tokenizer", "skip_tokenizer_init", "generation_config", "seed", "max_logprobs"))
def command(
    model: str | None,
    shows_graph: bool,
    shows_program: bool,
    shows_report: bool,
    full: bool,
    engine: dict[str, Any],
) -> None:
    """Show what a model is: sizes, memory, its graph and the program it becomes.

    MODEL is a directory or a hub name; the bundled model when left out. Without a flag: a summary, which ends with the
    memory that loading would take under the given settings.
    """
    config = EngineConfig.from_kwargs(model=model, **engine)
    directory = locate_model(model)
    source = open_source(directory, config)
    graph = source.graph(config.max_model_len or source.default_model_len)
    if not (shows_graph or shows_program or shows_report):
        # Line by line: a model that does not fit still gets its summary before the error.
        for line in _summary(source, graph):
            click.echo(line)
        program, memory = plan(config, source)
        click.echo("\n".join(_plan_lines(config, program, memory)))
        click.echo("\n".join(_tuning_lines(tuned(program, directory, config.num_threads)[1])))
        return
    parts = [show_graph(graph, fold=not full, expand=full)] if shows_graph else []
    if shows_program or shows_report:
        program, _ = plan(config, source)
        parts += [show_program(program, fold=not full)] if shows_program else []
        parts += [show_report(program, every=full)] if shows_report else []
    click.echo("\n\n".join(parts))


def num_parameters(graph: Graph) -> int:
    """Elements of all weights; a tied embedding counts once."""
    return sum(math.prod(int(dim) for dim in value.type.dims) for value in graph.constants.values())


def kv_bytes_per_token(config: ModelConfig) -> int:
    """Bytes of KV cache a token takes, over all layers; heads are padded as they are stored."""
    kv = KVLayout(config.num_layers, config.num_kv_heads, config.head_dim, config.dtype, block_size=1)
    return 2 * kv.num_layers * kv.num_kv_heads * kv.padded_head_dim * itemsize(kv.dtype)


def _summary(source: ModelSource, graph: Graph) -> Iterator[str]:
    config = source.model_config
    yield row("model", str(source.directory))
    if isinstance(source, EngineSource):
        yield from _manifest_lines(source)
    yield row("architecture", _architecture(config))
    yield row(
        "attention",
        f"{config.num_heads} heads of {config.head_dim}, {config.num_kv_heads} for keys and values"
        f"{_windows(config)}, rope {config.rope.rope_type} (theta {config.rope.theta:g})",
    )
    tied = ", embeddings tied" if config.tie_word_embeddings else ""
    yield row("parameters", f"{count(num_parameters(graph))} ({num_parameters(graph):,}){tied}")
    if not isinstance(source, EngineSource):
        yield row("on disk", _on_disk(source.directory, graph))
    yield row("KV cache", f"{kv_bytes_per_token(config):,} B per token, {config.dtype}")
    yield row("context", f"{config.max_position_embeddings:,} tokens")
    yield row("text", _text(source.tokenizer_directory))


def _manifest_lines(source: EngineSource) -> Iterator[str]:
    """What manifest.json and program.json say of the build."""
    manifest, program = source.files.manifest, source.files.program
    options = manifest.options
    yield row("built", f"by albireo {manifest.version} for {options.dtype}, up to {options.max_model_len:,} tokens")
    yield row("from", ", ".join(f"{name} {entry.sha256[:12]}" for name, entry in manifest.source.items()))
    total = sum(entry.size for entry in manifest.files.values())
    yield row("on disk", f"{size(total)} in {len(manifest.files) + 1} files, {len(source.files.stored)} constants")
    yield row("built kernels", ", ".join(dict.fromkeys(call.kernel for call in program.calls)))


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
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        return "no weights in this directory"
    with open_checkpoint(directory, graph) as checkpoint:
        total = sum(file.stat().st_size for file in files)
        names = checkpoint.names
        dtypes = sorted({checkpoint.tensor(name).dtype for name in names})
        return (
            f"{size(total)} in {len(files)} file{'s' * (len(files) > 1)}: {len(names)} tensors of {', '.join(dtypes)}"
        )


def _text(directory: Path) -> str:
    try:
        templates = read_tokenizer_files(directory).chat_templates
    except ModelError as error:
        return f"no usable tokenizer: {error}"
    return f"chat template {', '.join(sorted(templates))}" if templates else "no chat template: generate, not chat"


def _plan_lines(config: EngineConfig, program: Program, memory: MemoryPlan) -> list[str]:
    fixed = memory.weight_bytes + memory.arena_bytes + OVERHEAD_BYTES + memory.kv_bytes
    tokens = (memory.num_blocks - 1) * config.block_size
    return [
        row("program", str(totals(program))),
        row("kernels", ", ".join(dict.fromkeys(call.kernel for call in program.calls))),
        row(
            "memory",
            f"weights {size(memory.weight_bytes)}, activations {size(memory.arena_bytes)}, "
            f"KV cache {size(memory.kv_bytes)}, beside them {size(OVERHEAD_BYTES)}: {size(fixed)}",
        ),
        row(
            "",
            f"of {size(memory.budget_bytes)} allowed (memory_utilization={config.memory_utilization}, "
            f"machine {size(memory.machine_bytes)})",
        ),
        row(
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
