"""What became of one request: times, tokens and text, with vLLM's definitions.

Filled by client.py, read by metrics.py and the report. Does not know HTTP or clocks: times are given to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Where a chat's delta holds what was generated; reasoning_content is the older name of reasoning.
_OUTPUTS = ("content", "reasoning", "reasoning_content", "tool_calls", "function_call")


class StreamError(Exception):
    """A stream that says it failed, or that does not say what a completion says."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One request, sent and answered, or failed.

    A chunk is an event that carries output: one token mostly, several when a server bundles them.

    Fields:
        scheduled_s: when it was to be sent; start_s: when it was, on the same clock.
        queue_s: what it waited in the client for others to finish.
        ttft_s: from start_s to the first chunk; itl_s: each gap between chunks; latency_s: to the last chunk.
        prompt_len, num_output_tokens: as the server's usage says; num_output_tokens is None without one.
        wanted_len: tokens asked for.
        error: what went wrong; empty when nothing did.
    """

    scheduled_s: float = 0.0
    start_s: float = 0.0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    itl_s: list[float] = field(default_factory=list)
    latency_s: float = 0.0
    prompt_len: int = 0
    num_output_tokens: int | None = None
    wanted_len: int = 0
    text: str = ""
    error: str = ""

    @property
    def succeeded(self) -> bool:
        return not self.error


class StreamReader:
    """Reads the events of one completion into an Outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._parts: list[str] = []
        self._last_s: float | None = None
        self._is_finished = False

    def take(self, event: Any, now_s: float) -> None:
        """One event, decoded. Raises: StreamError for one that reports an error, or is no completion."""
        if not isinstance(event, dict):
            raise StreamError(f"the stream holds {type(event).__name__}, not an object")
        if event.get("error"):
            raise StreamError(f"error in the stream: {error_text(event)}")
        choices = event.get("choices")
        if choices:
            self._choice(choices[0], now_s)
        usage = event.get("usage")
        if usage:
            # The last word counts: some servers send a running count with every chunk.
            self._outcome.num_output_tokens = usage.get("completion_tokens")
            if usage.get("prompt_tokens") is not None:
                self._outcome.prompt_len = usage["prompt_tokens"]

    def done(self) -> None:
        """The stream said [DONE]."""
        self._is_finished = True

    def close(self) -> None:
        """The stream is at its end. Raises: StreamError when it broke off, or held no chunk."""
        if self._last_s is None:
            raise StreamError("the stream ended without a token")
        if not self._is_finished:
            raise StreamError("the stream broke off: neither a finish reason nor [DONE]")
        self._outcome.text = "".join(self._parts)

    def _choice(self, choice: dict[str, Any], now_s: float) -> None:
        if choice.get("finish_reason") is not None:
            self._is_finished = True
        if "delta" in choice and not _has_output(choice["delta"]):
            return
        outcome = self._outcome
        if self._last_s is None:
            outcome.ttft_s = now_s - outcome.start_s
        else:
            outcome.itl_s.append(now_s - self._last_s)
        self._last_s = now_s
        outcome.latency_s = now_s - outcome.start_s
        said = choice.get("delta") or choice.get("message")
        text = choice.get("text") if said is None else said.get("content")
        if text:
            self._parts.append(text)


def _has_output(delta: dict[str, Any]) -> bool:
    """Whether an event of a chat carries a token, by vLLM's rule: the role that opens it and the reason that ends it do
    not, an empty text of a token that is not shown does."""
    return any(map(delta.get, _OUTPUTS)) or (delta.get("content") == "" and "role" not in delta)


def error_text(body: Any) -> str:
    """The message in an error body of one of the usual forms, on one line."""
    found = body
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return " ".join(str(found).split())[:300]
