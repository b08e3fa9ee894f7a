"""Check an engine directory against the checkpoint it was built from.

Exit codes: 0 verified, 1 out of tolerance, 2 it could not be checked.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np

from albireo.api.sources.locate import locate_model
from albireo.backends.cpu.machine import name_lost_pages
from albireo.bench.machine import machine_facts
from albireo.bench.short_run import measure_short
from albireo.cli.terminal import amount_bar, row, size
from albireo.errors import EngineError
from albireo.verify.report import text_lines, write_reports
from albireo.verify.result import Verification
from albireo.verify.run import NUM_TOKENS, verify

OUT_OF_TOLERANCE, NOT_CHECKED = 1, 2
#: The request that a quantized directory's speed is measured with.
_INPUT_LEN, _OUTPUT_LEN = 512, 64


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--against", required=True, metavar="MODEL", help="The checkpoint DIR was built from.")
@click.option("--text", metavar="FILE", help="Measure quality on this text; by default on a sample of a page.")
@click.option(
    "--num-tokens", type=click.IntRange(2), default=NUM_TOKENS, show_default=True, help="Tokens of the text to look at."
)
@click.option("--no-speed", is_flag=True, help="Leave out the short runs that measure speed, where DIR is quantized.")
@click.pass_context
def command(
    ctx: click.Context, directory: Path, against: str, text: str | None, num_tokens: int, no_speed: bool
) -> None:
    """Check an engine directory against the checkpoint it was built from.

    Looks at the graph, the weights, each call alone, the layers together, greedy tokens, and the quality of text
    against float32; ends at the first thing out of tolerance and names it. Of a quantized directory that passes, speed
    is measured too. Writes verify.md, verify.json and verify.html into DIR. Exit code 0: verified; 1: out of tolerance;
    2: it could not be checked.
    """
    name_lost_pages()
    try:
        found = verify(directory, against, text=text, num_tokens=num_tokens, progress=amount_bar)
    except EngineError as error:
        if ctx.find_root().params["traceback"]:
            raise
        click.echo(f"error: {error}", err=True)
        ctx.exit(NOT_CHECKED)
    click.echo("\n".join(text_lines(found)))
    speed = dict(_speed(directory, against, found)) if found.is_verified and not no_speed else {}
    for name, said in speed.items():
        click.echo(row(name, said))
    click.echo(row("report", _written(directory, found, {**speed, **_environment()})))
    if not found.is_verified:
        ctx.exit(OUT_OF_TOLERANCE)


def _speed(directory: Path, against: str, found: Verification) -> Iterator[tuple[str, str]]:
    """Of a directory in few bits, and of its checkpoint where that is not."""
    sides = {"speed": directory}
    if found.quantized == "here":
        sides["unquantized"] = locate_model(against)
    for name, model in sides.items() if found.quantized else ():
        try:
            with amount_bar("speed", 0):
                run = measure_short(model, _INPUT_LEN, _OUTPUT_LEN)
        except EngineError as error:
            yield name, f"not measured: {error}"
            continue
        yield (
            name,
            f"decode {run.decode_tokens_per_s:,.1f} tok/s, prefill {run.prefill_tokens_per_s:,.0f} tok/s, weights "
            f"{size(run.weight_bytes)}; {run.run.num_prompt_tokens} + {run.run.num_output_tokens} tokens on "
            f"{run.num_threads} threads",
        )


def _written(directory: Path, found: Verification, environment: dict[str, str]) -> str:
    try:
        paths = write_reports(directory, found, environment)
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
