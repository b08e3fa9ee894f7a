"""Random requests of chosen lengths, as vLLM's random dataset: the same seed gives the same requests.

Called by latency.py and throughput.py. Does not know tokenizers: a prompt is a list of token ids.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from albireo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """One prompt and how many tokens to produce for it."""

    prompt_token_ids: list[int]
    output_len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomWorkload:
    """What to draw.

    Fields:
        input_len, output_len: means of the lengths, in tokens; prefix_len comes on top of input_len.
        range_ratio: lengths are uniform in [len * (1 - ratio), len * (1 + ratio)]; in [0, 1).
        prefix_len: tokens that all prompts begin with.
    """

    num_prompts: int
    input_len: int
    output_len: int
    range_ratio: float = 0.0
    prefix_len: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_prompts", "input_len", "output_len"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not allowed; it must be at least 1")
        if self.prefix_len < 0:
            raise ConfigError(f"prefix_len={self.prefix_len} is not allowed; it must be at least 0")
        if not 0.0 <= self.range_ratio < 1.0:
            raise ConfigError(f"random_range_ratio={self.range_ratio} is outside [0, 1)")

    @property
    def max_len(self) -> int:
        """Longest sequence that can come out, prompt and output together."""
        return (
            self.prefix_len
            + _bounds(self.input_len, self.range_ratio)[1]
            + _bounds(self.output_len, self.range_ratio)[1]
        )


def random_requests(workload: RandomWorkload, vocab_size: int, excluded: Collection[int] = ()) -> list[BenchRequest]:
    """Draw the requests. excluded: ids that are never drawn (special tokens)."""
    rng = np.random.default_rng(workload.seed)
    allowed = np.setdiff1d(np.arange(vocab_size), np.fromiter(excluded, np.int64, len(excluded)))
    if not len(allowed):
        raise ConfigError(f"all {vocab_size} token ids of the vocabulary are special; there is nothing to draw from")
    low, high = _bounds(workload.input_len, workload.range_ratio)
    input_lens = rng.integers(low, high + 1, workload.num_prompts)
    low, high = _bounds(workload.output_len, workload.range_ratio)
    output_lens = rng.integers(low, high + 1, workload.num_prompts)
    prefix: list[int] = rng.choice(allowed, workload.prefix_len).tolist()
    return [
        BenchRequest(prefix + rng.choice(allowed, num_input).tolist(), num_output)
        for num_input, num_output in zip(input_lens.tolist(), output_lens.tolist(), strict=True)
    ]


def _bounds(mean: int, ratio: float) -> tuple[int, int]:
    return max(1, math.floor(mean * (1 - ratio))), math.ceil(mean * (1 + ratio))
