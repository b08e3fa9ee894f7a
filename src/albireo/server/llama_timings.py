"""Where the time of an answer went, as llama.cpp tells it: milliseconds and tokens a second.

Used by the endpoints of texts. Does not know protocols.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from albireo.engine_process.tracked import Tracked
from albireo.server.accounts import Account


class Timings(msgspec.Struct):
    """Milliseconds and tokens: of prompts, as far as they were computed, and of what was predicted."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float

    @classmethod
    def of(cls, account: Account, requests: Sequence[Tracked], num_predicted: int) -> Timings:
        """As they stand. Args: num_predicted: tokens that are told."""
        spent = account.timings()
        num_cached = sum(each.num_cached_tokens for each in requests)
        num_prompt = sum(len(each.submission.prompt_token_ids) for each in requests) - num_cached
        prompt_s, decode_s = spent["prefill_s"], spent["decode_s"]
        return cls(
            cache_n=num_cached,
            prompt_n=num_prompt,
            prompt_ms=prompt_s * 1000,
            prompt_per_token_ms=prompt_s * 1000 / max(num_prompt, 1),
            prompt_per_second=num_prompt / prompt_s if prompt_s else 0.0,
            predicted_n=num_predicted,
            predicted_ms=decode_s * 1000,
            predicted_per_token_ms=decode_s * 1000 / max(num_predicted, 1),
            predicted_per_second=num_predicted / decode_s if decode_s else 0.0,
        )
