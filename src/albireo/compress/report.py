"""A quantization as lines, as JSON, and as the files beside the checkpoint.

Called by cli/quantize.py. What the page looks like is page.py's.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from albireo.compress.page import page
from albireo.compress.result import Outcome
from albireo.verify.report import finite

REPORT_JSON, REPORT_PAGE = "quantization.json", "quantization.html"
_FORMAT, _VERSION = "albireo-quantization", 1


def text_lines(outcome: Outcome) -> list[str]:
    """What a terminal is told."""
    counts = Counter(linear.encoding for linear in outcome.linears)
    lines = [
        f"{'linears':<14}{', '.join(f'{count} {name}' for name, count in counts.most_common())}; "
        f"{outcome.bits_per_weight:.2f} bits a weight",
        f"{'bytes':<14}{outcome.bytes_before:,} -> {outcome.bytes_after:,} "
        f"({outcome.bytes_after / outcome.bytes_before:.0%})",
    ]
    if outcome.is_untied:
        lines.append(f"{'head':<14}a matrix of its own now; the embedding table stays as it was")
    for found in outcome.qualities:
        quality = found.quality
        lines.append(
            f"{found.text:<14}perplexity {quality.oracle_perplexity:.4g} -> {quality.perplexity:.4g} "
            f"({found.perplexity_change:+.2%}), KL {quality.mean_kl:.4g} nats, "
            f"top-1 agreement {quality.top1_agreement:.2%}, {quality.num_predictions:,} tokens"
        )
    return lines + _speed_lines(outcome)


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Everything. Numbers that are not finite become strings."""
    data = {"format": {"name": _FORMAT, "version": _VERSION}, **asdict(outcome)}
    data["bits_per_weight"] = outcome.bits_per_weight
    for entry, found in zip(data["qualities"], outcome.qualities, strict=True):
        entry["perplexity_change"] = found.perplexity_change
    whole: dict[str, Any] = finite(data)
    return whole


def report_files(outcome: Outcome) -> dict[str, bytes]:
    """Both files by name."""
    text = json.dumps(to_json(outcome), indent=1, ensure_ascii=False) + "\n"
    return {REPORT_JSON: text.encode(), REPORT_PAGE: page(outcome).encode()}


def _speed_lines(outcome: Outcome) -> list[str]:
    speeds = outcome.speeds
    if speeds is None:
        return [f"{'speed':<14}not measured: {outcome.speed_note}"] if outcome.speed_note else []
    before, after = speeds.original, speeds.quantized
    return [
        f"{'decode':<14}{before.decode_tokens_per_s:,.1f} -> {after.decode_tokens_per_s:,.1f} tok/s "
        f"({speeds.decode_ratio:.2f} x)",
        f"{'prefill':<14}{before.prefill_tokens_per_s:,.0f} -> {after.prefill_tokens_per_s:,.0f} tok/s "
        f"({speeds.prefill_ratio:.2f} x); one request of {speeds.num_prompt_tokens} + {speeds.num_output_tokens} "
        f"tokens, {speeds.num_threads} threads",
    ]
