"""Profiles: the temperaments an engine can have, as the three numbers that make one.

Resolved by EngineConfig and BuildConfig. They change scheduling and what memory is planned for, never results. Does not
know engines or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Profile = Literal["balanced", "throughput", "latency"]


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Most sequences and most tokens of one step, and milliseconds that one with a prompt is to take while sequences
    decode beside it; 0: any."""

    max_num_seqs: int
    max_num_batched_tokens: int
    target_itl_ms: int = 0


#: What each profile sets where nothing is asked for. A step lasts as long as its tokens take, and whoever decodes
#: beside a prompt waits for it: latency makes steps short. Long steps and many seats read the weights less often for as
#: many tokens: throughput. 960 rows are two slabs of the native linears, whose activations stay near: a prompt of 2,048
#: takes 4 % less than in one step, and gaps are half as long. docs/journal.md has the measurements.
PROFILES: Mapping[Profile, StepLimits] = {
    "balanced": StepLimits(max_num_seqs=64, max_num_batched_tokens=960, target_itl_ms=500),
    "throughput": StepLimits(max_num_seqs=256, max_num_batched_tokens=4096),
    "latency": StepLimits(max_num_seqs=64, max_num_batched_tokens=512, target_itl_ms=100),
}
#: The same on a GPU, which computes two hundred products in the time it reads a weight: what fills its steps. Not
#: measured yet.
GPU_PROFILES: Mapping[Profile, StepLimits] = {
    "balanced": StepLimits(max_num_seqs=256, max_num_batched_tokens=8192, target_itl_ms=200),
    "throughput": StepLimits(max_num_seqs=512, max_num_batched_tokens=16384),
    "latency": StepLimits(max_num_seqs=128, max_num_batched_tokens=2048, target_itl_ms=50),
}
DEFAULT: Profile = "balanced"


def resolve(
    profile: Profile | None,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    target_itl_ms: int | None = None,
    *,
    is_gpu: bool = False,
) -> StepLimits:
    """The limits of a step: what was asked for, else the profile's."""
    limits = (GPU_PROFILES if is_gpu else PROFILES)[profile or DEFAULT]
    return StepLimits(
        limits.max_num_seqs if max_num_seqs is None else max_num_seqs,
        limits.max_num_batched_tokens if max_num_batched_tokens is None else max_num_batched_tokens,
        limits.target_itl_ms if target_itl_ms is None else target_itl_ms,
    )
