"""Compile a model ahead of time into an engine directory, which starts at once.

Every command and `LLM` take such a directory where they take a model.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import click

from albireo.api.build import build
from albireo.bench.built import speed_rows
from albireo.cli import tune
from albireo.cli.terminal import duration, row, size
from albireo.config import BuildConfig
from albireo.graph.private_norms import FEW_ROWS
from albireo.profiles import PROFILES
from albireo.quantization.schemes import HEADS, SCHEMES


def _help(field: str) -> str:
    """The line of a field in the docstring of BuildConfig."""
    found = re.search(
        rf"^ {{8}}[\w, ]*\b{field}\b[\w, ]*: (.+(?:\n {{12}}.+)*)", BuildConfig.__doc__ or "", re.MULTILINE
    )
    text = re.sub(r"\s+", " ", found[1]) if found else ""
    return text[:1].upper() + text[1:].replace("None: ", "by default ")


@click.command()
@click.argument("model", required=False)
@click.option("-o", "--output", required=True, metavar="DIR", help="Where to; it must be free or empty.")
@click.option("--dtype", help=_help("dtype"))
@click.option("--quantization", type=click.Choice(list(SCHEMES)), help=_help("quantization"))
@click.option("--head", "quantization_head", type=click.Choice(list(HEADS)), help="The same for the head alone.")
@click.option("--hf-overrides", metavar="JSON", help=_help("hf_overrides"))
@click.option("--mm-processor-kwargs", metavar="JSON", help=_help("mm_processor_kwargs"))
@click.option("--mmproj", metavar="FILE", help=_help("mmproj"))
@click.option("--kv-cache-dtype", help=_help("kv_cache_dtype"))
@click.option("--target", help=_help("target"))
@click.option("--profile", type=click.Choice(list(PROFILES)), help=_help("profile"))
@click.option("--max-model-len", type=int, help=_help("max_model_len"))
@click.option("--max-num-seqs", type=int, help=_help("max_num_seqs"))
@click.option("--max-num-batched-tokens", type=int, help=_help("max_num_batched_tokens"))
@click.option(
    "--tp", "--tensor-parallel-size", "-tp", "tensor_parallel_size", type=int, help=_help("tensor_parallel_size")
)
@click.option("--tp-invariant", is_flag=True, help=_help("tp_invariant"))
@click.option("--without", multiple=True, metavar="PASS[,PASS]", help=_help("without"))
@click.option("--no-measure", is_flag=True, help="Leave out the short run that measures speed.")
@click.option("--force", is_flag=True, help=_help("force"))
@click.option("--tune", "tunes", is_flag=True, help="Then measure kernels on this machine: see albireo tune.")
def command(
    model: str | None,
    output: str,
    tp_invariant: bool,
    without: tuple[str, ...],
    no_measure: bool,
    force: bool,
    tunes: bool,
    **given: Any,
) -> None:
    """Compile a model ahead of time into an engine directory, which starts at once.

    MODEL is a directory or a hub name; the bundled model when left out. The directory runs with every command and with
    LLM, without the checkpoint, on any machine of this kind of processor.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    config = BuildConfig(force=force, tp_invariant=tp_invariant, without=without, **settings)
    result = build(model, output, config, show_progress=True)
    numbers = result.totals
    click.echo(row("built", f"{result.directory}, {size(result.num_bytes)}, in {duration(result.build_s)}"))
    click.echo(row("computed in", f"{result.dtype}, kernels for {result.levels[0]}"))
    if config.tensor_parallel_size > 1:
        click.echo(row("ranks", f"{config.tensor_parallel_size}; what follows is of one"))
    click.echo(
        row(
            "program",
            f"ops {numbers.ops_before} -> {numbers.ops_after} calls, {numbers.barriers} barriers a step, "
            f"{numbers.many_barriers} beyond {FEW_ROWS} rows "
            f"(nothing fused: {result.unfused.ops_after} calls, {result.unfused.barriers} barriers)",
        )
    )
    click.echo(
        row(
            "moves",
            f"{numbers.bytes_per_token:,} B per token + {numbers.kv_bytes_per_position:,} B per position of context",
        )
    )
    if not no_measure and result.command == "generate":  # what is measured is text that it writes
        for name, text in speed_rows(result.directory, result.levels):
            click.echo(row(name, text))
    file = " FILE" if result.command == "transcribe" else ""
    click.echo(row("run it", f"albireo {result.command} {shlex.quote(str(result.directory))}{file}"))
    if tunes:
        tune.run(str(result.directory), budget_s=tune.BUDGET_S)
