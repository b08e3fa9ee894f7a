"""One span a request, sent to an OpenTelemetry collector: what took how long, by vLLM's names. No text, ever.

Made by serving.py when --otlp-endpoint is given, told of each account that is closed. Spans wait in a queue of bounded
size and are sent by a thread of the SDK's; what a collector does not take is dropped, and requests never notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from albireo import __version__
from albireo.errors import ConfigError
from albireo.server.accounts import Account

_LOG = logging.getLogger("albireo.server")

#: Seconds for one attempt to send, with what it takes to try again; and for the last one when the server ends.
EXPORT_S, FLUSH_S = 5.0, 2.0
#: Spans that wait, and that are sent at once; seconds between.
MAX_QUEUED, MAX_SENT, INTERVAL_S = 2048, 512, 1.0
_CONTEXT = (b"traceparent", b"tracestate")


class Tracing:
    """Invariant: record() does not raise, and does not wait for a collector."""

    def __init__(self, model: str, exporter: Any) -> None:
        """Args: model: as spans name it. exporter: takes spans; a SpanExporter."""
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._model = model
        resource = Resource({"service.name": "albireo", "service.version": __version__})
        self._provider = TracerProvider(
            resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, MAX_QUEUED, INTERVAL_S * 1000, MAX_SENT))
        self._tracer = self._provider.get_tracer("albireo.server", __version__)

    @classmethod
    def to(cls, endpoint: str, model: str) -> Tracing:
        """Send to a collector's URL. Raises: ConfigError without the extra 'otlp'."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return cls(model, OTLPSpanExporter(endpoint, timeout=EXPORT_S))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"otlp_endpoint needs the extra 'otlp' ({error.name} is missing): pip install 'albireo[otlp]'"
            ) from None

    def record(self, account: Account, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """A request is over. Args: headers: of the request; it may belong to a trace."""
        try:
            self._record(
                account, {name.decode(): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
            )
        except Exception as error:
            _LOG.warning("a request was not traced", exc_info=error)

    def _record(self, account: Account, context: dict[str, str]) -> None:
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        known = account.timings()
        # Wall clocks may jump, so one moment is read, and the span's length is the monotonic clock's.
        ended_ns = time.time_ns()
        span = self._tracer.start_span(
            "llm_request",
            TraceContextTextMapPropagator().extract(context) if context else None,
            SpanKind.SERVER,
            _attributes(account, known, self._model),
            start_time=ended_ns - int(known["wall_s"] * 1e9),
        )
        if any(tracked.has_failed for tracked in account.requests):
            span.set_status(StatusCode.ERROR)
        span.end(ended_ns)

    async def close(self) -> None:
        """Send what waits, as long as that takes no more than FLUSH_S."""
        loop, is_done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waited so long
                loop.call_soon_threadsafe(is_done.set)

        threading.Thread(target=flush, name="albireo-traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_done.wait(), FLUSH_S)


def _attributes(account: Account, known: dict[str, float], model: str) -> dict[str, Any]:
    """Attributes of a span. Source of the names: vLLM's SpanAttributes."""
    requests = account.requests
    continuations = [continuation for tracked in requests for continuation in tracked.continuations]
    found: dict[str, Any] = {
        "gen_ai.request.id": account.request_id,
        "gen_ai.response.model": model,
        "gen_ai.response.finish_reasons": [continuation.finish_reason or "error" for continuation in continuations],
        "gen_ai.usage.prompt_tokens": sum(len(tracked.submission.prompt_token_ids) for tracked in requests),
        "gen_ai.usage.completion_tokens": sum(tracked.num_output_tokens for tracked in requests),
        "gen_ai.usage.num_sequences": len(continuations),
        "gen_ai.latency.e2e": known["wall_s"],
        "gen_ai.latency.time_in_queue": known["grammar_s"] + known["queue_s"],
        "gen_ai.latency.time_in_model_prefill": known["prefill_s"],
        "gen_ai.latency.time_in_model_decode": known["decode_s"],
        "gen_ai.latency.time_in_model_inference": known["prefill_s"] + known["decode_s"],
    }
    first = [tracked.times.first_token_s for tracked in requests if tracked.times.first_token_s is not None]
    if first:
        found["gen_ai.latency.time_to_first_token"] = min(first) - account.received_s
    if requests:
        params = requests[0].submission.params
        asked = {
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "n": params.n,
        }
        found |= {f"gen_ai.request.{name}": value for name, value in asked.items() if value is not None}
    return found
