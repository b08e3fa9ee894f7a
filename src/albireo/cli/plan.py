"""Predict what a model takes and how fast it will be, before any weight is read.

Needs config.json alone. The processor's limits are measured, the rest is counted. On a GPU no speed is predicted; of
one that is named a bound is told.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from albireo.backends.cuda.known_gpus import KNOWN_GPUS
from albireo.bench.plan import PlanWorkload, plan_model
from albireo.bench.plan_report import plan_lines
from albireo.cli.options import engine_options
from albireo.config import EngineConfig

_DECIMAL, _BINARY = ({unit: base**power for power, unit in enumerate(("", *"kmgt"))} for base in (1000, 1024))


def byte_count(text: str) -> int:
    """An amount of memory: 16GiB, 500MB, 1.5G (of 1024s), or a number of bytes. Raises: click.BadParameter."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?b)?|b)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{text!r} is no amount of memory; give one such as 16GiB, 500MB or 17179869184")
    units = _DECIMAL if (found[3] or "").lower() == "b" else _BINARY
    return int(float(found[1]) * units[(found[2] or "").lower()])


def _memory(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else byte_count(value)


@click.command()
@click.argument("model", required=False)
@click.option(
    "--memory",
    callback=_memory,
    metavar="SIZE",
    help="What the engine may use in all, such as 16GiB; by default memory_utilization of the device's memory.",
)
@click.option("--concurrency", type=int, help="Requests at once; by default 16, or as many as fit.")
@click.option("--input-len", default=128, show_default=True, help="Tokens of each prompt.")
@click.option("--output-len", default=128, show_default=True, help="Tokens produced for each.")
@click.option("--temperature", default=1.0, show_default=True, help="0 takes the likeliest token.")
@click.option(
    "--gpu",
    type=click.Choice(list(KNOWN_GPUS), case_sensitive=False),
    help="Plan for this GPU, which need not be here, or for as many as --tensor-parallel-size says: memory, and what "
    "its data sheet allows of speed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@engine_options(without=("tokenizer", "skip_tokenizer_init", "generation_config", "max_logprobs", "verify_hashes"))
def command(
    model: str | None,
    memory: int | None,
    concurrency: int | None,
    input_len: int,
    output_len: int,
    temperature: float,
    gpu: str | None,
    as_json: bool,
    engine: dict[str, Any],
) -> None:
    """Predict what a model takes and how fast it will be, before any weight is read.

    MODEL is a directory or a hub name; the bundled model when left out. A directory with nothing but config.json will
    do, and so will that file. Says where memory goes, the longest context and the most requests that fit, time to first
    token and tokens per second, with error bars (on a GPU that --gpu names, what it could do at most; on another no
    speeds); with --speculative-config also what drafts would bring. Exits with an error and the numbers when the
    workload does not fit.
    """
    if model is not None and Path(model).name == "config.json" and Path(model).is_file():
        model = str(Path(model).parent)
    config = EngineConfig.from_kwargs(model=model, **engine)
    workload = PlanWorkload(
        concurrency=concurrency, input_len=input_len, output_len=output_len, temperature=temperature
    )
    figures = plan_model(config, workload, memory, None if gpu is None else KNOWN_GPUS[gpu])
    click.echo(json.dumps(figures, indent=2) if as_json else "\n".join(plan_lines(figures)))
