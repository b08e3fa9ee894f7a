"""Run a file of requests of OpenAI's batch format without a server; what was done already is not done again.

Ends with 0 when every line has an answer, with 1 when one has an error.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from albireo.cli.options import engine_options, server_options
from albireo.cli.served import ServedCommand, needs_serve, server_settings
from albireo.cli.terminal import amount_bar, duration
from albireo.config import EngineConfig

#: Fields of ServerSettings that say what a line may ask for, and how its answer is read.
_FIELDS = (
    "served_model_name",
    "lora_modules",
    "max_body_bytes",
    "max_n",
    "max_stop",
    "max_embedding_inputs",
    "pooling_type",
    "chat_template",
    "chat_template_kwarg",
    "default_chat_template_kwargs",
    "tool_call_parser",
    "reasoning_parser",
)
#: Nobody is refused because others wait.
_ENDLESS = {"max_num_queued_requests": 1 << 31, "max_num_queued_tokens": 1 << 62, "log_requests": False}


@click.command(cls=ServedCommand)
@click.argument("argument", required=False, metavar="[MODEL]")
@click.option("--model", help="The same, as vLLM has it.")
@click.option(
    "-i",
    "--input-file",
    "source",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Requests, one a line.",
)
@click.option(
    "-o",
    "--output-file",
    "output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="What became of them, one a line, as they are done; lines that are there are not run again.",
)
@click.option(
    "--max-inflight",
    type=click.IntRange(1),
    help="Most sequences in the engine, those that wait included; by default twice its max_num_seqs.",
)
@server_options(only=_FIELDS)
@engine_options(without=("skip_tokenizer_init",))
def command(
    argument: str | None,
    model: str | None,
    source: Path,
    output: Path,
    max_inflight: int | None,
    server: dict[str, Any],
    engine: dict[str, Any],
) -> None:
    """Run a file of requests of OpenAI's batch format without a server; what was done already is not done again.

    MODEL is a directory or a hub name; the bundled model when left out. A line of the input is
    {"custom_id": "ask-1", "method": "POST", "url": "/v1/chat/completions", "body": {…}}; further urls are
    /v1/completions, /v1/embeddings, /v1/score, /v1/rerank and /v1/responses. The whole file is checked before a model
    is loaded.

    \b
      albireo run-batch -i asks.jsonl -o answers.jsonl ./my-model
    """
    if argument is not None and model is not None:
        raise click.UsageError("There is a MODEL and a --model; give one of them.")
    with needs_serve("run-batch"):
        from albireo.replicas.place import local_places
        from albireo.server.run_batch import BatchRun
    settings = server_settings(argument or model, {**server, **_ENDLESS}, engine)
    config = EngineConfig.from_kwargs(**engine)
    run = BatchRun(source, output, settings)
    started_s = time.monotonic()
    with run.opened() as results:
        num_earlier = len(results.done)
        earlier = f", {num_earlier} of them done already" * bool(num_earlier)
        click.echo(f"{source}: {run.counts.total} requests{earlier}", err=True)
        num_left = run.counts.total - num_earlier
        if num_left > 0:
            with amount_bar("Requests", num_left) as advance:
                run.run(results, engine, local_places(config.data_parallel_size), max_inflight, advance)
    counts, usage = run.counts, run.usage
    click.echo(
        f"{output}: {counts.completed} answers, {counts.failed} errors; {usage.input_tokens:,} tokens of prompts, "
        f"{usage.output_tokens:,} of answers; {duration(time.monotonic() - started_s)}",
        err=True,
    )
    if counts.failed:
        click.get_current_context().exit(1)
