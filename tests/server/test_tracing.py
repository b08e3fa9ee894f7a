"""Spans of requests: a collector that decodes what it is sent, one that is not there, and the extra that is missing."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.errors import ConfigError
from albireo.params import SamplingParams
from albireo.server import tracing
from albireo.server.accounts import Account
from albireo.server.settings import ServerSettings
from albireo.server.tracing import Tracing
from server_process import wait_until

SECRET = "a purple elephant"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(BaseHTTPRequestHandler):
    """Keeps the bodies it gets, by path."""

    def do_POST(self) -> None:
        found: list[tuple[str, bytes]] = self.server.found  # type: ignore[attr-defined]
        found.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Collector)
    server.found = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def spans_of(found: list[tuple[str, bytes]]) -> list[Any]:
    spans = []
    for path, body in found:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert names["service.name"] == "albireo"
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    return spans


def attributes_of(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_one_span_a_request_reaches_a_collector(start: Any, collector: Any) -> None:
    server = start("--otlp-endpoint", f"http://127.0.0.1:{collector.server_port}")
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    ask = {"prompt": SECRET, "max_tokens": 6, "n": 2, "ignore_eos": True, "seed": 1}
    made = server.http.post("/v1/completions", json=ask, headers=headers).json()
    chat = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 5, "ignore_eos": True, "stream": True}
    server.http.post("/v1/chat/completions", json=chat)
    wait_until(lambda: len(spans_of(collector.found)) == 2)
    collector.shutdown()
    collector.server_close()
    for _ in range(3):  # one that is gone is nobody's business
        assert server.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 2}).status_code == 200
    assert server.stop() == 0
    first, second = sorted(spans_of(collector.found), key=lambda span: span.start_time_unix_nano)
    assert (first.name, first.trace_id.hex(), first.parent_span_id.hex()) == ("llm_request", TRACE, PARENT)
    assert second.trace_id.hex() != TRACE and second.parent_span_id == b""
    found = attributes_of(first)
    wanted = {
        "gen_ai.request.id": made["id"],
        "gen_ai.response.model": "story",
        "gen_ai.usage.prompt_tokens": made["usage"]["prompt_tokens"],
        "gen_ai.usage.completion_tokens": 12,
        "gen_ai.usage.num_sequences": 2,
        "gen_ai.request.max_tokens": 6,
        "gen_ai.request.n": 2,
    }
    assert {name: found[name] for name in wanted} == wanted
    latency = {name.rpartition(".")[2]: found[name] for name in found if name.startswith("gen_ai.latency.")}
    parts = ("time_in_queue", "time_in_model_prefill", "time_in_model_decode")
    assert set(latency) == {"e2e", "time_to_first_token", "time_in_model_inference", *parts}
    assert all(seconds > 0 for seconds in latency.values()) and sum(latency[name] for name in parts) <= latency["e2e"]
    assert first.end_time_unix_nano - first.start_time_unix_nano == pytest.approx(latency["e2e"] * 1e9, abs=2)
    assert attributes_of(second)["gen_ai.usage.completion_tokens"] == 5
    texts = [SECRET, *(choice["text"] for choice in made["choices"])]
    assert not any(text.encode() in body for text in texts for _, body in collector.found)


def account(reason: Any = "length") -> Account:
    tracked = Tracked.new(0, "a", Submission(None, [1, 2], SamplingParams(seed=1)), 0, Inbox(), 1.0, None)
    tracked.end_all(reason, "why")
    return Account("a", "/v1/completions", 1.0, 1.5, 0, 0, 0, [tracked], 10.0)


class Stuck(SpanExporter):
    """A collector that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.is_free = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        self.is_free.wait()
        return SpanExportResult.FAILURE


def test_a_collector_that_takes_nothing_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """More spans than the queue holds are recorded while an export hangs; closing ends all the same."""
    monkeypatch.setattr(tracing, "FLUSH_S", 0.05)
    stuck = Stuck()
    made = Tracing("m", stuck)
    try:
        for _ in range(2 * tracing.MAX_QUEUED):
            made.record(account(), ())
        asyncio.run(made.close())
    finally:
        stuck.is_free.set()


def test_what_fails_is_an_error_and_a_broken_header_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is sent at the end, for which there is time."""
    monkeypatch.setattr(tracing, "FLUSH_S", 60.0)
    exporter = InMemorySpanExporter()
    made = Tracing("m", exporter)
    made.record(account(), [(b"traceparent", b"\xff nonsense")])
    made.record(account("error"), ())
    made.record(None, ())  # type: ignore[arg-type]  # whatever goes wrong inside is not the request's business
    asyncio.run(made.close())
    assert [span.status.is_ok for span in exporter.get_finished_spans()] == [True, False]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'albireo\[otlp\]'"):
        Tracing.to("http://127.0.0.1:4318/v1/traces", "m")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector/", "https://collector/v1/traces"),
        ("http://collector/otlp/x", "http://collector/otlp/x"),
    ],
)
def test_the_address_of_a_collector(given: str, meant: str) -> None:
    assert ServerSettings(otlp_endpoint=given).otlp_endpoint == meant


@pytest.mark.parametrize(
    "given", ["", "collector:4318", "grpc://collector:4317", "http://", "http://a:b", "http://a:99999"]
)
def test_an_address_that_is_none(given: str) -> None:
    with pytest.raises(ConfigError, match="otlp_endpoint"):
        ServerSettings(otlp_endpoint=given)
