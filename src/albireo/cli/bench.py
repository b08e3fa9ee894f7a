"""Measure latency or throughput, each speed beside the machine's limit.

The flags and the JSON keys of `vllm bench latency` and `vllm bench throughput`, where the meaning is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from albireo.bench.latency import Latency, latency_lines, measure_latency
from albireo.bench.throughput import measure_throughput, throughput_lines
from albireo.bench.timed import Sampling
from albireo.bench.workload import RandomWorkload
from albireo.cli.options import engine_options
from albireo.cli.terminal import progress
from albireo.config import EngineConfig
from albireo.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_SAMPLING = (
    click.option("--n", default=1, show_default=True, help="Continuations of each prompt."),
    click.option("--temperature", default=1.0, show_default=True, help="0 takes the likeliest token."),
    click.option("--disable-detokenize", is_flag=True, help="Leave text out of the time."),
)
_OUTPUT = (
    click.option(
        "--output-json", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to this file."
    ),
    click.argument("directory", metavar="[MODEL]", required=False),
    click.option("--model", help="The same as MODEL, as vLLM has it."),
)


def _one(directory: str | None, model: str | None) -> str | None:
    if directory is not None and model is not None:
        raise ConfigError(f"MODEL {directory} and --model {model} are both given; keep one")
    return directory if model is None else model


def _apply(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def command() -> None:
    """Measure latency or throughput, each speed beside the machine's limit.

    The floor of a step is the time to read its weights and KV cache at the read speed, or to multiply at the
    dot-product peak, whichever is longer. Both are measured in the same process, between the runs.
    """


@command.command()
@click.option("--input-len", default=32, show_default=True, help="Tokens of each prompt.")
@click.option("--output-len", default=128, show_default=True, help="Tokens produced for each.")
@click.option("--batch-size", default=8, show_default=True, help="Requests at once.")
@click.option("--num-iters-warmup", default=3, show_default=True, help="Runs that do not count.")
@click.option("--num-iters", default=10, show_default=True, help="Runs that count.")
@_apply(_SAMPLING)
@_apply(_OUTPUT)
@engine_options()
def latency(
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
    config = EngineConfig.from_kwargs(model=_one(directory, model), **engine)
    wanted = Latency(
        input_len=input_len,
        output_len=output_len,
        batch_size=batch_size,
        num_iters_warmup=num_iters_warmup,
        num_iters=num_iters,
        seed=config.seed,
        sampling=_sampling(config, n, temperature, disable_detokenize),
    )
    figures = measure_latency(config, wanted, progress, show_progress=True)
    _report(figures, latency_lines(figures), output_json)


@command.command()
@click.option("--dataset-name", type=click.Choice(["random"]), default="random", show_default=True)
@click.option("--input-len", default=128, show_default=True, help="Mean tokens of a prompt, the prefix aside.")
@click.option("--output-len", default=128, show_default=True, help="Mean tokens produced for each.")
@click.option("--random-range-ratio", default=0.0, show_default=True, help="Lengths vary by this fraction: [0, 1).")
@click.option("--prefix-len", default=0, show_default=True, help="Tokens that all prompts begin with.")
@click.option("--num-prompts", default=64, show_default=True, help="Requests, all there from the start.")
@click.option("--num-iters", default=3, show_default=True, help="Times the whole is run.")
@_apply(_SAMPLING)
@_apply(_OUTPUT)
@engine_options()
def throughput(
    dataset_name: str,
    input_len: int,
    output_len: int,
    random_range_ratio: float,
    prefix_len: int,
    num_prompts: int,
    num_iters: int,
    n: int,
    temperature: float,
    disable_detokenize: bool,
    output_json: Path | None,
    directory: str | None,
    model: str | None,
    engine: dict[str, Any],
) -> None:
    """How many tokens a second many requests give.

    MODEL is a directory or a hub name; the bundled model when left out.
    """
    config = EngineConfig.from_kwargs(model=_one(directory, model), **engine)
    workload = RandomWorkload(
        num_prompts=num_prompts,
        input_len=input_len,
        output_len=output_len,
        range_ratio=random_range_ratio,
        prefix_len=prefix_len,
        seed=config.seed,
    )
    sampling = _sampling(config, n, temperature, disable_detokenize)
    figures = measure_throughput(config, workload, sampling, num_iters, progress, show_progress=True)
    _report(figures | {"dataset_name": dataset_name}, throughput_lines(figures), output_json)


def _sampling(config: EngineConfig, n: int, temperature: float, disable_detokenize: bool) -> Sampling:
    has_text = not (disable_detokenize or config.skip_tokenizer_init)
    return Sampling(n=n, temperature=temperature, seed=config.seed, detokenize=has_text)


def _report(figures: dict[str, Any], lines: list[str], output_json: Path | None) -> None:
    if output_json is not None:
        output_json.write_text(json.dumps(figures, indent=2) + "\n")
    click.echo("\n".join(lines))
