"""How long from the start of a process to its first token, part by part.

The flags and the JSON keys of `vllm bench startup`, where the meaning is the same.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from albireo.api.build import build
from albireo.api.sources.locate import locate_model
from albireo.bench.startup import Startup, measure_startup, startup_lines
from albireo.cli.bench.offline import OUTPUT_OPTIONS, one_model, report
from albireo.cli.options import apply, engine_options
from albireo.cli.terminal import progress
from albireo.config import BuildConfig


@click.command()
@click.option("--num-iters-cold", default=3, show_default=True, help="Starts with the model's files read from disk.")
@click.option("--num-iters-warmup", default=1, show_default=True, help="Starts that do not count.")
@click.option("--num-iters-warm", default=3, show_default=True, help="Starts with the model's files in memory.")
@click.option("--input-len", default=32, show_default=True, help="Tokens of the prompt.")
@click.option("--built", is_flag=True, help="Then build an engine directory from MODEL, and measure that too.")
@apply(OUTPUT_OPTIONS)
@engine_options()
def command(
    num_iters_cold: int,
    num_iters_warmup: int,
    num_iters_warm: int,
    input_len: int,
    built: bool,
    output_json: Path | None,
    directory: str | None,
    model: str | None,
    engine: dict[str, Any],
) -> None:
    """How long from the start of a process to its first token, part by part.

    Every round is a process of its own: the interpreter, the import of the package, loading the model, the first token.
    MODEL is a checkpoint, an engine directory or a hub name; the bundled model when left out.
    """

    def measured(where: Path, settings: dict[str, Any]) -> dict[str, Any]:
        wanted = Startup(
            directory=where.resolve(),
            engine=settings,
            num_cold=num_iters_cold,
            num_warm=num_iters_warm,
            num_warmups=num_iters_warmup,
            input_len=input_len,
        )
        return measure_startup(wanted, progress)

    checkpoint = locate_model(one_model(directory, model))
    figures = measured(checkpoint, engine)
    lines = startup_lines(figures)
    if built:
        with TemporaryDirectory(prefix="albireo-startup-") as place:
            # What is fixed by a build goes into it; everything else is said at the start.
            fixed = {name: value for name, value in engine.items() if name in BuildConfig.__dataclass_fields__}
            made = build(checkpoint, Path(place) / "engine", BuildConfig(**fixed), show_progress=True)
            rest = {name: value for name, value in engine.items() if name not in fixed}
            figures["built"] = measured(made.directory, rest)
        lines += startup_lines(figures["built"])
    report(figures, lines, output_json)
