"""How long one batch takes from start to end.

The flags and the JSON keys of `vllm bench latency`, where the meaning is the same.
"""

from __future__ import annotations

import click

from albireo.bench.latency import Latency, latency_lines, measure_latency
from albireo.cli.bench.offline import Offline, offline_options, report
from albireo.cli.terminal import progress


@click.command()
@click.option("--input-len", default=32, show_default=True, help="Tokens of each prompt.")
@click.option("--output-len", default=128, show_default=True, help="Tokens produced for each.")
@click.option("--batch-size", default=8, show_default=True, help="Requests at once.")
@click.option("--num-iters-warmup", default=3, show_default=True, help="Runs that do not count.")
@click.option("--num-iters", default=10, show_default=True, help="Runs that count.")
@offline_options
def command(offline: Offline, **numbers: int) -> None:
    """How long one batch takes from start to end.

    MODEL is a directory or a hub name; the bundled model when left out.
    """
    wanted = Latency(**numbers, seed=offline.config.seed, sampling=offline.sampling)
    figures = measure_latency(offline.config, wanted, progress, show_progress=True)
    report(figures, latency_lines(figures), offline.output_json)
