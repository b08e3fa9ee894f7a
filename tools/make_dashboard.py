"""Write deploy/grafana-dashboard.json: panels over the metrics of albireo serve, which have vLLM's names.

Run it after a change here; tools/check_prometheus.py checks every query against a running server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[1] / "deploy" / "grafana-dashboard.json"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_BY = 'model_name=~"$model"'


def rate(name: str) -> str:
    return f"sum(rate(vllm:{name}{{{_BY}}}[$__rate_interval]))"


def total(name: str, prefix: str = "vllm") -> str:
    return f"sum({prefix}:{name}{{{_BY}}})"


def quantiles(name: str) -> list[tuple[str, str]]:
    bucket = f"sum by (le) (rate(vllm:{name}_bucket{{{_BY}}}[$__rate_interval]))"
    return [(f"p{part}", f"histogram_quantile(0.{part}, {bucket})") for part in (50, 95, 99)]


_HITS = f"{rate('prefix_cache_hits_total')} / {rate('prefix_cache_queries_total')}"
_BY_REASON = f"sum by (finished_reason) (rate(vllm:request_success_total{{{_BY}}}[$__rate_interval]))"
_REFUSED = 'sum by (reason) (rate(vllm:admission_rejections_total{model_name=~"$model"}[$__rate_interval]))'

#: (title, unit, what it tells, [(legend, query)]).
PANELS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    (
        "Requests",
        "short",
        "In the running batch, and waiting for their turn.",
        [("running", total("num_requests_running")), ("waiting", total("num_requests_waiting"))],
    ),
    (
        "Tokens a second",
        "short",
        "Answers, and prompts without what the prefix cache had.",
        [
            ("answers", rate("generation_tokens_total")),
            ("prompts", f"{rate('prompt_tokens_total')} - {rate('prompt_tokens_cached_total')}"),
        ],
    ),
    (
        "KV cache",
        "percentunit",
        "Blocks in use, and the part of looked-up prompt tokens that the prefix cache had.",
        [("in use", f"max(vllm:kv_cache_usage_perc{{{_BY}}})"), ("found in the prefix cache", _HITS)],
    ),
    ("Time to first token", "s", "From arrival to the first token.", quantiles("time_to_first_token_seconds")),
    ("Between tokens", "s", "From one token of a request to its next.", quantiles("inter_token_latency_seconds")),
    ("Whole request", "s", "From arrival to the last token.", quantiles("e2e_request_latency_seconds")),
    ("Queue", "s", "From arrival until it runs.", quantiles("request_queue_time_seconds")),
    (
        "Tokens in a step",
        "short",
        "How many tokens go through the model together.",
        quantiles("iteration_tokens_total"),
    ),
    ("Ended", "reqps", "Continuations a second, by reason.", [("{{finished_reason}}", _BY_REASON)]),
    (
        "Trouble",
        "short",
        "Preemptions and refused requests a second; engine processes started again.",
        [
            ("preemptions", rate("num_preemptions_total")),
            ("refused, {{reason}}", _REFUSED),
            ("restarts", total("engine_restarts", "albireo")),
        ],
    ),
]


def panel(place: int, title: str, unit: str, words: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": title,
        "description": words,
        "datasource": _SOURCE,
        "gridPos": {"x": 12 * (place % 2), "y": 8 * (place // 2), "w": 12, "h": 8},
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 12, "lineWidth": 2, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for i, (legend, query) in enumerate(queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """What Grafana imports: Dashboards, New, Import."""
    return {
        "title": "Albireo",
        "uid": "albireo",
        "tags": ["albireo", "llm"],
        "schemaVersion": 39,
        "version": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"},
                {
                    "name": "model",
                    "type": "query",
                    "label": "Model",
                    "datasource": _SOURCE,
                    "query": "label_values(vllm:num_requests_running, model_name)",
                    "refresh": 2,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": [panel(place, *each) for place, each in enumerate(PANELS)],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(dashboard(), indent=1) + "\n")
    print(PATH)
