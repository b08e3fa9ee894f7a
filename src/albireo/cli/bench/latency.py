"""How long one batch takes from start to end.

The flags and the JSON keys of `vllm bench latency`, where the meaning is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from albireo.bench.latency import Latency, latency_lines, measure_latency
from albireo.cli.bench.offline import OUTPUT_OPTIONS, SAMPLING_OPTIONS, one_model, report, sampling_of
from albireo.cli.options import apply, engine_options
from albireo.cli.terminal import progress
from albireo.config import EngineConfig


@click.command()
@click.option("--input-len", default=32, show_default=True, help="Tokens of each prompt.")
@click.option("--output-len", default=128, show_default=True, help="Tokens produced for each.")
@click.option("--batch-size", default=8, show_default=True, help="Requests at once.")
@click.option("--num-iters-warmup", default=3, show_default=True, help="Runs that do not count.")
@click.option("--num-iters", default=10, show_default=True, help="Runs that count.")
@apply(SAMPLING_OPTIONS)
@apply(OUTPUT_OPTIONS)
@engine_options()
def command(
    input_len: int,
    output_len: int,
    batch_size: int,
    num_iters_warmup: int,
    num_iters: int,
    n: int,
    temperature: float,
    disable_detokenize: bool,
    output_json: Path | None,
    directory: str | None,
    model: str | None,
    engine: dict[str, Any],
) -> None:
    """How long one batch takes from start to end.

    MODEL is a directory or a hub name; the bundled model when left out.
    """
    config = EngineConfig.from_kwargs(model=one_model(directory, model), **engine)
    wanted = Latency(
        input_len=input_len,
        output_len=output_len,
        batch_size=batch_size,
        num_iters_warmup=num_iters_warmup,
        num_iters=num_iters,
        seed=config.seed,
        sampling=sampling_of(config, n, temperature, disable_detokenize),
    )
    figures = measure_latency(config, wanted, progress, show_progress=True)
    report(figures, latency_lines(figures), output_json)
