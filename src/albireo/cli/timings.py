"""Finished requests -> one line of timings.

Used by generate.py and chat.py. Reads the engine's own clock, which is in the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from albireo.cli.terminal import duration
from albireo.outputs import RequestOutput


def timings_line(outputs: Sequence[RequestOutput], load_s: float | None = None) -> str:
    """Load time, prompt tokens, time to first token (the median of several), and the speed of writing.

    The speed is that after the first token for one request, and of the whole for several.
    """
    num_prompt = sum(len(output.prompt_token_ids) for output in outputs)
    num_cached = sum(output.num_cached_tokens for output in outputs)
    num_written = sum(len(each.token_ids) for output in outputs for each in output.outputs)
    parts = [] if load_s is None else [f"loaded in {duration(load_s)}"]
    cached = f" ({num_cached} cached)" if num_cached else ""
    parts.append(f"{len(outputs)} prompt{'s' * (len(outputs) > 1)} of {num_prompt} tokens{cached}")
    metrics = [output.metrics for output in outputs if output.metrics is not None]
    waits = [each.first_token_latency for each in metrics if each.first_token_latency is not None]
    if waits:
        parts.append(f"first token after {duration(median(waits))}")
    ends = [each.last_token_s for each in metrics if each.last_token_s is not None]
    if not ends:
        return ", ".join(parts)
    whole_s = max(ends) - min(each.arrival_s for each in metrics)
    parts.append(f"{num_written} tokens in {duration(whole_s)}")
    first = metrics[0].first_token_s
    if len(outputs) == 1 and first is not None:
        after_first = num_written - len(outputs[0].outputs)
        whole_s, num_written = ends[0] - first, after_first
    if whole_s > 0:
        parts.append(f"{num_written / whole_s:,.0f} tok/s")
    return ", ".join(parts)
