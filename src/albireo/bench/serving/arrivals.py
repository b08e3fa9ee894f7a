"""When requests are sent: offsets from the start, drawn as vLLM draws them.

Used by cli/bench/serve. Does not wait.
"""

from __future__ import annotations

import math

import numpy as np

from albireo.errors import ConfigError


def arrival_offsets(num_requests: int, request_rate: float, burstiness: float, seed: int) -> list[float]:
    """Seconds from the start at which each request is sent.

    Gaps are gamma distributed with shape burstiness and mean 1 / request_rate: 1 is a Poisson process, less comes in
    bursts, infinity is a metronome. Stretched so that the last one is sent at num_requests / request_rate exactly, as
    vLLM does it: the rate offered is the rate asked for, whatever the seed.

    Args: request_rate: requests a second; infinity sends all at once.
    """
    if not request_rate > 0:
        raise ConfigError(f"request_rate={request_rate} is not allowed; it must be above 0, or inf")
    if not burstiness > 0:
        raise ConfigError(f"burstiness={burstiness} is not allowed; it must be above 0, or inf")
    if math.isinf(request_rate):
        return [0.0] * num_requests
    if math.isinf(burstiness):
        gaps = np.full(num_requests, 1.0 / request_rate)
    else:
        gaps = np.random.default_rng(seed).gamma(burstiness, 1.0 / (request_rate * burstiness), num_requests)
    offsets = np.cumsum(gaps)
    if num_requests and offsets[-1] > 0:
        offsets *= num_requests / request_rate / offsets[-1]
    found: list[float] = offsets.tolist()
    return found
