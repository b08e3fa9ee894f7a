"""Show what a model or a build is: sizes, memory, its graph, and the program it becomes.

Reads the configuration and the headers of the weights, not the weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from albireo.api.compiled import compile_all
from albireo.api.load import plan, plan_ranks
from albireo.api.machine.device import Device
from albireo.api.machine.devices import planning_device
from albireo.api.machine.tuning import tuned
from albireo.api.sources.config_only import open_to_plan
from albireo.api.sources.locate import locate_model
from albireo.api.sources.source import ModelSource
from albireo.backends.backend import ExplainedCatalog
from albireo.cli.facts import (
    Fact,
    hearing_facts,
    media_facts,
    model_facts,
    plan_facts,
    program_facts,
    rank_facts,
    tuning_facts,
)
from albireo.cli.options import engine_options
from albireo.cli.terminal import plain, row
from albireo.config import EngineConfig
from albireo.errors import ConfigError, EngineError, OutOfMemory
from albireo.graph.program import Program
from albireo.graph.show import show_graph, show_program, show_report
from albireo.inspect.arena import arena_lines
from albireo.inspect.diff import diff_lines, weights_are_compared
from albireo.inspect.files import picture_path, write_picture
from albireo.inspect.kernels import kernel_lines
from albireo.inspect.layer_picture import layer_picture
from albireo.inspect.page import page
from albireo.inspect.side import open_sides
from albireo.inspect.story import Explained, explain, layer_story


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
    source = open_to_plan(locate_model(model), config)
    config = source.adopt(config)
    device = planning_device(config)
    graph = source.graph(config.max_model_len or source.default_model_len)
    if target is None and not any(flags):
        # Line by line: a model that does not fit still gets its summary before the error.
        for fact in model_facts(source, graph, config):
            click.echo(plain(row(*fact)))
        for fact in media_facts(config, source, device):
            click.echo(plain(row(*fact)))
        programs, memory = plan_ranks(config, source, device=device)
        program = programs[0]
        for fact in hearing_facts(config, source, device, program):
            click.echo(row(*fact))
        for fact in rank_facts(programs, memory, device):
            click.echo(row(*fact))
        for fact in plan_facts(config, program, memory):
            click.echo(plain(row(*fact)))
        if device.name == "cpu":
            for fact in tuning_facts(tuned(program, source.directory, config.num_threads)[1]):
                click.echo(row(*fact))
        return
    parts = [show_graph(graph, fold=not full, expand=full)] if graph_to == "-" else []
    if target is not None or any(flags[1:]):
        program, what_runs = _planned(config, source, device)
        if device.name == "cpu":
            program, _ = tuned(program, source.directory, config.num_threads)
        parts += [show_program(program, fold=not full)] if shows_program else []
        parts += [show_report(program, every=full)] if shows_report else []
        parts += ["\n".join(kernel_lines(program, device.catalog()))] if shows_kernels else []
        parts += ["\n".join(arena_lines(program))] if shows_arena else []
        if target is not None:
            facts = [*model_facts(source, graph, config), *what_runs]
            explained = explain(graph, program, source.parts[0])
            parts.append(_draw(target, explained, layer, source, facts, device.catalog()))
    click.echo(plain("\n\n".join(parts)))


def _planned(config: EngineConfig, source: ModelSource, device: Device) -> tuple[Program, list[Fact]]:
    """The first rank's program, and what is to be said of it; of one that this machine has no memory for, why not."""
    try:
        program, memory = plan(config, source, device)
    except OutOfMemory as error:
        model_len = config.max_model_len or source.default_model_len
        program = compile_all(config, source, model_len, device).programs[0]
        return program, [*program_facts(program), ("memory", str(error))]
    return program, plan_facts(config, program, memory)


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
        text = page(explained, story, catalog, facts, source.directory.absolute().name, model)
    write_picture(target, text)
    return (
        f"{target}: layer {story.layer}, {story.num_ops} ops -> {len(story.groups)} calls, "
        f"{story.before_bytes:,} B -> {story.after_bytes:,} B of activations a token"
    )
