"""The flags of serve.py, with the names of `vllm bench serve`.

Used by serve.py, which gets their values by name. Flags that vLLM has not are marked in their help.
"""

from __future__ import annotations

import math
from pathlib import Path

import click

#: Sampling parameters that go into every request when given, under their own names.
SAMPLING_FLAGS = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "frequency_penalty": float,
    "presence_penalty": float,
    "repetition_penalty": float,
}
_FILE = click.Path(dir_okay=False, path_type=Path)

SERVER_OPTIONS = (
    click.option("--backend", type=click.Choice(["openai", "openai-chat"]), default="openai", show_default=True),
    click.option("--base-url", help="Scheme, host and port, when not http on --host and --port."),
    click.option("--host", default="127.0.0.1", show_default=True),
    click.option("--port", type=int, default=8000, show_default=True),
    click.option("--endpoint", help="Path; by default the backend's: /v1/completions or /v1/chat/completions."),
    click.option("--header", "headers", multiple=True, metavar="KEY=VALUE...", help="Sent with every request."),
    click.option("--insecure", is_flag=True, help="Do not check TLS certificates."),
    click.option("--model", help="Name or directory; by default the first model the server lists."),
    click.option("--served-model-name", help="Name in the requests, when it is not --model."),
    click.option("--tokenizer", help="Directory or hub name, when it is not the model's."),
    click.option("--skip-tokenizer-init", is_flag=True, help="No tokenizer: for --dataset-name custom only."),
)
TRAFFIC_OPTIONS = (
    click.option("--num-prompts", type=click.IntRange(1), default=1000, show_default=True, help="Requests."),
    click.option("--request-rate", type=float, default=math.inf, show_default=True, help="Requests a second."),
    click.option(
        "--burstiness",
        type=float,
        default=1.0,
        show_default=True,
        help="1: a Poisson process; below: in bursts; above: evenly. Without effect at an infinite rate.",
    ),
    click.option("--max-concurrency", type=int, help="Most requests at once; the others wait in the client."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option("--num-warmups", type=int, default=0, show_default=True, help="Requests that do not count."),
    click.option(
        "--ready-check-timeout-sec",
        type=float,
        default=0.0,
        show_default=True,
        help="Wait so long for the server to answer a request; 0: do not try.",
    ),
    click.option(
        "--ignore-eos/--no-ignore-eos",
        default=None,
        help="Ask for answers of full length; so by default for random and traces. Some servers refuse the field.",
    ),
    click.option("--extra-body", help="JSON of fields to add to every request."),
    click.option("--request-id-prefix", default="", help="Send x-request-id with this and the request's number."),
    *(
        click.option(f"--{name.replace('_', '-')}", name, type=kind, help="Sent when given.")
        for name, kind in SAMPLING_FLAGS.items()
    ),
)
RESULT_OPTIONS = (
    click.option(
        "--percentile-metrics",
        default="ttft,tpot,itl",
        show_default=True,
        help="Of ttft, tpot, itl, e2el; with --max-concurrency client_queue_time, e2el_including_client_queue too.",
    ),
    click.option("--metric-percentiles", default="99", show_default=True, help="Comma-separated."),
    click.option(
        "--goodput", multiple=True, metavar="KEY:MS...", help="Count requests within ttft:, tpot: and e2el: limits."
    ),
    click.option("--save-result", is_flag=True, help="Write the figures as JSON."),
    click.option("--save-detailed", is_flag=True, help="Write every request's too."),
    click.option("--result-dir", type=click.Path(file_okay=False, path_type=Path), help="Where to; by default here."),
    click.option("--result-filename", help="By default {label}-{rate}qps-{model}-{date}.json."),
    click.option("--label", help="First part of the file's name; by default the backend."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE...", help="Your own, written with the figures."),
    click.option("--html", type=_FILE, help="Write a page with plots here (not in vLLM)."),
    click.option("--disable-tqdm", is_flag=True, help="No progress bar; there is none without a terminal anyway."),
)
DATASET_OPTIONS = (
    click.option(
        "--dataset-name",
        type=click.Choice(["random", "sharegpt", "prefix_repetition", "custom", "timed_trace"]),
        default="random",
        show_default=True,
    ),
    click.option("--dataset-path", type=_FILE, help="File of sharegpt, custom or timed_trace."),
    click.option("--input-len", type=int, help="The same as --random-input-len."),
    click.option("--output-len", type=int, help="For every data set, in place of its own flag."),
    click.option("--disable-shuffle", is_flag=True, help="Keep the order of the data set."),
    click.option("--no-oversample", is_flag=True, help="Do not repeat prompts when the file has too few."),
    click.option("--skip-chat-template", is_flag=True, help="custom: send prompts as they are."),
    click.option("--random-input-len", type=int, default=1024, show_default=True),
    click.option("--random-output-len", type=int, default=128, show_default=True),
    click.option("--random-range-ratio", type=float, default=0.0, show_default=True, help="Lengths vary so much."),
    click.option("--random-prefix-len", type=int, default=0, show_default=True, help="Tokens all prompts begin with."),
    click.option("--sharegpt-output-len", type=int, help="By default that of the file's answers."),
    click.option("--custom-output-len", type=int, default=256, show_default=True, help="-1: output_tokens of a line."),
    click.option("--prefix-repetition-prefix-len", type=int, default=256, show_default=True),
    click.option("--prefix-repetition-suffix-len", type=int, default=256, show_default=True),
    click.option("--prefix-repetition-num-prefixes", type=int, default=10, show_default=True),
    click.option("--prefix-repetition-output-len", type=int, default=128, show_default=True),
    click.option(
        "--timed-trace-chunk-hash-size", type=int, default=16, show_default=True, help="512 for Mooncake's traces."
    ),
    click.option(
        "--timed-trace-sec-multiplier",
        type=float,
        default=1.0,
        show_default=True,
        help="0.001 for times in milliseconds, as Mooncake's; larger to slow a trace down.",
    ),
    click.option(
        "--timed-trace-len-multiplier",
        type=float,
        default=1.0,
        show_default=True,
        help="Of every length, for a machine smaller than the trace's (not in vLLM).",
    ),
    *(
        click.option(
            f"--timed-trace-label-{label.replace('_', '-')}",
            f"label_{label}",
            default=label,
            show_default=True,
            help="Name of the field.",
        )
        for label in ("timestamp", "input_length", "output_length", "hash_ids")
    ),
    click.option("--self-timed/--no-self-timed", default=None, help="timed_trace: use its times; else --request-rate."),
)
