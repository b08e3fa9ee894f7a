"""Compile a model ahead of time into an engine directory, which starts at once.

Every command and `LLM` take such a directory where they take a model.
"""

from __future__ import annotations

import re
from typing import Any

import click

from albireo.api.build import build
from albireo.cli import tune
from albireo.cli.terminal import duration, row, size
from albireo.config import BuildConfig


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
@click.option("--max-model-len", type=int, help=_help("max_model_len"))
@click.option("--max-num-seqs", type=int, help=_help("max_num_seqs"))
@click.option("--max-num-batched-tokens", type=int, help=_help("max_num_batched_tokens"))
@click.option("--force", is_flag=True, help=_help("force"))
@click.option("--tune", "tunes", is_flag=True, help="Then measure kernels on this machine: see albireo tune.")
def command(model: str | None, output: str, force: bool, tunes: bool, **given: Any) -> None:
    """Compile a model ahead of time into an engine directory, which starts at once.

    MODEL is a directory or a hub name; the bundled model when left out. The directory runs with every command and with
    LLM, without the checkpoint, on any machine of this kind of processor.
    """
    config = BuildConfig(force=force, **{name: value for name, value in given.items() if value is not None})
    result = build(model, output, config, show_progress=True)
    numbers = result.totals
    click.echo(row("built", f"{result.directory}, {size(result.num_bytes)}, in {duration(result.build_s)}"))
    click.echo(row("computed in", result.dtype))
    click.echo(
        row("program", f"ops {numbers.ops_before} -> {numbers.ops_after} calls, {numbers.barriers} barriers a step")
    )
    click.echo(
        row(
            "moves",
            f"{numbers.bytes_per_token:,} B per token + {numbers.kv_bytes_per_position:,} B per position of context",
        )
    )
    click.echo(row("run it", f"albireo generate {result.directory}"))
    if tunes:
        tune.run(str(result.directory), budget_s=tune.BUDGET_S)
