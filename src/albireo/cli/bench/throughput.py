"""How many tokens a second many requests give.

The flags and the JSON keys of `vllm bench throughput`, where the meaning is the same.
"""

from __future__ import annotations

import click

from albireo.bench.throughput import measure_throughput, throughput_lines
from albireo.bench.workload import RandomWorkload
from albireo.cli.bench.offline import Offline, offline_options, report
from albireo.cli.terminal import progress


@click.command()
@click.option("--dataset-name", type=click.Choice(["random"]), default="random", show_default=True)
@click.option("--input-len", default=128, show_default=True, help="Mean tokens of a prompt, the prefix aside.")
@click.option("--output-len", default=128, show_default=True, help="Mean tokens produced for each.")
@click.option("--random-range-ratio", default=0.0, show_default=True, help="Lengths vary by this fraction: [0, 1).")
@click.option("--prefix-len", default=0, show_default=True, help="Tokens that all prompts begin with.")
@click.option("--num-prompts", default=64, show_default=True, help="Requests, all there from the start.")
@click.option("--num-iters", default=3, show_default=True, help="Times the whole is run.")
@offline_options
def command(dataset_name: str, random_range_ratio: float, num_iters: int, offline: Offline, **lengths: int) -> None:
    """How many tokens a second many requests give.

    MODEL is a directory or a hub name; the bundled model when left out.
    """
    workload = RandomWorkload(**lengths, range_ratio=random_range_ratio, seed=offline.config.seed)
    figures = measure_throughput(offline.config, workload, offline.sampling, num_iters, progress, show_progress=True)
    report(figures | {"dataset_name": dataset_name}, throughput_lines(figures), offline.output_json)
