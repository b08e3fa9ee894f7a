"""The figures of a run as vLLM prints them and as it saves them.

Called by cli/bench/serve. Does not know how they were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from albireo.bench.serving.load import LoadRun
from albireo.bench.serving.metrics import METRICS, Wanted, honesty, output_len, percent, statistics_ms, times_s, totals
from albireo.errors import ConfigError

#: Keys that are saved with --save-detailed only, as in vLLM.
DETAILED = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")
#: Short name and title of each metric, as vLLM prints them.
NAMES = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
    "client_queue_time": ("Client Queue Time", "Client-side Queueing"),
    "e2el_including_client_queue": ("E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"),
}
_WIDTH = 50
#: A client that is later than this with a request did not offer the load it was asked for.
_LATE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What was run, as it goes into the result.

    Fields:
        metadata: of the user's own; its keys stand beside the others.
        is_exact_len: whether the server was told to go on after the end of text.
    """

    backend: str
    model_id: str
    num_prompts: int
    label: str | None = None
    tokenizer_id: str | None = None
    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    is_exact_len: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown_rate(self) -> float | str:
        return "inf" if math.isinf(self.request_rate) else self.request_rate

    def file_name(self, now: datetime) -> str:
        """vLLM's name for the file of a result."""
        limit = "" if self.max_concurrency is None else f"-concurrency{self.max_concurrency}"
        model = self.model_id.rstrip("/").rpartition("/")[2]
        return f"{self.label or self.backend}-{self.shown_rate}qps{limit}-{model}-{now:%Y%m%d-%H%M%S}.json"


def check_metadata(setup: Setup, wanted: Wanted) -> None:
    """Raises: ConfigError for metadata with the name of a figure."""
    plain = result_of(LoadRun([], 0.0, 1.0), replace(setup, metadata={}), wanted, datetime.min)
    taken = sorted(setup.metadata.keys() & plain.keys())
    if taken:
        raise ConfigError(f"--metadata {taken[0]}=... is the name of a figure; choose another")


def result_of(run: LoadRun, setup: Setup, wanted: Wanted, now: datetime) -> dict[str, Any]:
    """Everything under vLLM's keys, and what honesty() adds."""
    outcomes = run.outcomes
    figures = totals(run, wanted)
    figures |= {
        "input_lens": [each.prompt_len for each in outcomes],
        "output_lens": [output_len(each) for each in outcomes],
        "ttfts": [each.ttft_s for each in outcomes],
        "itls": [each.itl_s for each in outcomes],
        "latencies": [each.latency_s for each in outcomes],
        "start_times": [each.start_s for each in outcomes],
        "queue_times": [each.queue_s for each in outcomes],
        "generated_texts": [each.text for each in outcomes],
        "errors": [each.error for each in outcomes],
    }
    for name, values in times_s(run, setup.max_concurrency, setup.request_rate).items():
        if name in wanted.metrics:
            figures |= statistics_ms(values, name, wanted.percentiles)
    figures |= honesty(run, setup.is_exact_len)
    head = {
        "date": f"{now:%Y%m%d-%H%M%S}",
        "endpoint_type": setup.backend,
        "backend": setup.backend,
        "label": setup.label,
        "model_id": setup.model_id,
        "tokenizer_id": setup.tokenizer_id,
        "num_prompts": setup.num_prompts,
    }
    traffic = {
        "request_rate": setup.shown_rate,
        "burstiness": setup.burstiness,
        "max_concurrency": setup.max_concurrency,
    }
    return {**head, **setup.metadata, **traffic, **figures}


def without_details(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is saved without --save-detailed."""
    return {key: value for key, value in result.items() if key not in DETAILED}


def result_lines(result: Mapping[str, Any], wanted: Wanted) -> Iterator[str]:
    """vLLM's block."""
    yield "{s:{c}^{n}}".format(s=" Serving Benchmark Result ", n=_WIDTH, c="=")
    yield _line("Successful requests:", result["completed"])
    yield _line("Failed requests:", result["failed"])
    if result["max_concurrency"] is not None:
        yield _line("Maximum request concurrency:", result["max_concurrency"])
    if result["request_rate"] != "inf":
        yield _line("Request rate configured (RPS):", float(result["request_rate"]))
    yield _line("Benchmark duration (s):", result["duration"])
    yield _line("Total input tokens:", result["total_input_tokens"])
    yield _line("Total generated tokens:", result["total_output_tokens"])
    yield _line("Request throughput (req/s):", result["request_throughput"])
    if result["request_goodput"] is not None:
        yield _line("Request goodput (req/s):", result["request_goodput"])
    yield _line("Output token throughput (tok/s):", result["output_throughput"])
    yield _line("Peak output token throughput (tok/s):", result["max_output_tokens_per_s"])
    yield _line("Peak concurrent requests:", float(result["max_concurrent_requests"]))
    yield _line("Total token throughput (tok/s):", result["total_token_throughput"])
    for name in METRICS:
        if f"mean_{name}_ms" in result:
            short, title = NAMES[name]
            yield f"{title:-^{_WIDTH}}"
            yield _line(f"Mean {short} (ms):", result[f"mean_{name}_ms"])
            yield _line(f"Median {short} (ms):", result[f"median_{name}_ms"])
            for value in wanted.percentiles:
                yield _line(f"P{percent(value)} {short} (ms):", result[f"p{percent(value)}_{name}_ms"])
    yield "=" * _WIDTH


def warning_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What makes the figures mean less than they seem to."""
    for message, count in result["failures"].items():
        yield f"{count} requests failed: {message}"
    if result["num_short_outputs"]:
        yield (
            f"{result['num_short_outputs']} answers are shorter than asked for: the server may not know ignore_eos, or "
            "its context is full; throughput of answers of other lengths is not to be compared"
        )
    if result["num_without_usage"]:
        yield (
            f"{result['num_without_usage']} answers came without usage: their tokens are counted as chunks, which may "
            "hold several"
        )
    if result["max_send_lateness_s"] > _LATE_S:
        yield (
            f"this client sent a request {result['max_send_lateness_s']:.2f} s late: it had not the processor time for "
            "the load asked for"
        )


def _line(name: str, value: float | int) -> str:
    return f"{name:<40} {value:<10.2f}" if isinstance(value, float) else f"{name:<40} {value:<10}"
