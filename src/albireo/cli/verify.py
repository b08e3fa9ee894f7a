"""Check an engine directory against the checkpoint it was built from.

Exit codes: 0 verified, 1 out of tolerance, 2 it could not be checked.
"""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np

from albireo.bench.machine import machine_facts
from albireo.cli.terminal import amount_bar, row
from albireo.errors import EngineError
from albireo.verify.report import text_lines, write_reports
from albireo.verify.result import Verification
from albireo.verify.run import NUM_TOKENS, verify

OUT_OF_TOLERANCE, NOT_CHECKED = 1, 2


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--against", required=True, metavar="MODEL", help="The checkpoint DIR was built from.")
@click.option("--text", metavar="FILE", help="Measure quality on this text; by default on a sample of a page.")
@click.option(
    "--num-tokens", type=click.IntRange(2), default=NUM_TOKENS, show_default=True, help="Tokens of the text to look at."
)
@click.pass_context
def command(ctx: click.Context, directory: Path, against: str, text: str | None, num_tokens: int) -> None:
    """Check an engine directory against the checkpoint it was built from.

    Looks at the graph, the weights, each call alone, the layers together, greedy tokens, and the quality of text
    against float32; ends at the first thing out of tolerance and names it. Writes verify.md, verify.json and
    verify.html into DIR. Exit code 0: verified; 1: out of tolerance; 2: it could not be checked.
    """
    try:
        found = verify(directory, against, text=text, num_tokens=num_tokens, progress=amount_bar)
    except EngineError as error:
        if ctx.find_root().params["traceback"]:
            raise
        click.echo(f"error: {error}", err=True)
        ctx.exit(NOT_CHECKED)
    click.echo("\n".join(text_lines(found)))
    click.echo(row("report", _written(directory, found)))
    if not found.is_verified:
        ctx.exit(OUT_OF_TOLERANCE)


def _written(directory: Path, found: Verification) -> str:
    try:
        paths = write_reports(directory, found, _environment())
    except OSError as error:
        return f"was not written: {directory}: {error.strerror or error}"
    return ", ".join(map(str, paths))


def _environment() -> dict[str, str]:
    """What the report says of the machine: nothing that tells whose it is."""
    facts = machine_facts()
    return {
        "processor": f"{facts.cpu}, {facts.num_cpus} logical",
        "system": f"{platform.system()} {platform.machine()}, Python {facts.python}, numpy {np.__version__}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
