"""The embedding of a prompt as the engine sees it: what it may ask for, and how far it is.

Used by request.py and engine.py. Does not know hidden states: it keeps sums that it is given, and counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from albireo.engine.settings import EngineSettings
from albireo.errors import InvalidParams, PromptTooLong, UnsupportedFeature
from albireo.params import PoolingParams
from albireo.step import PoolingTask


@dataclass(slots=True)
class Pooling:
    """How far one embedding is. Invariant: sums are of the hidden states of the first num_summed prompt tokens.

    What was summed stays when the sequence is preempted; its tokens are computed again, but not summed again.
    """

    params: PoolingParams
    num_summed: int = 0
    sums: list[float] = field(default_factory=list)

    @property
    def needs_all(self) -> bool:
        """Whether the hidden state of each token is wanted, so that none of them may come from the prefix cache."""
        return self.params.pooling_type == "mean"

    def task(self, start: int, end: int, num_prompt: int) -> PoolingTask | None:
        """What is wanted of a step that computes prompt tokens start .. end-1; None: nothing."""
        is_last = end == num_prompt
        first = max(start, self.num_summed) if self.needs_all else end - is_last
        if first >= end:
            return None
        return PoolingTask(self.params, end - first, self.num_summed, self.sums, is_last)

    def take(self, task: PoolingTask, sums: list[float]) -> None:
        """A step that did not end the prompt was executed."""
        self.num_summed += task.num_rows
        self.sums = sums


def check_pooling(prompt_token_ids: list[int], params: PoolingParams, settings: EngineSettings) -> int:
    """Refuse what can never run. The prompt may fill the context: nothing is produced behind it.

    Returns: one more than the prompt's length, which the sequence never reaches.
    Raises: InvalidParams, PromptTooLong, with the numbers; UnsupportedFeature.
    """
    if settings.embedding_size == 0:
        raise UnsupportedFeature("this model gives no embeddings: its head has an unknown shape; take another model")
    if params.dimensions is not None and params.dimensions > settings.embedding_size:
        raise InvalidParams(
            f"dimensions={params.dimensions} is more than this model's {settings.embedding_size}; ask for fewer, or "
            "leave it out"
        )
    num_prompt = len(prompt_token_ids)
    if num_prompt > settings.max_model_len:
        raise PromptTooLong(
            f"the prompt has {num_prompt} tokens, max_model_len={settings.max_model_len}; shorten it or raise "
            "max_model_len"
        )
    if num_prompt > settings.capacity_tokens:
        raise PromptTooLong(
            f"the prompt's {num_prompt} tokens do not fit the KV cache, which has room for {settings.capacity_tokens}; "
            "shorten it or raise kv_cache_memory_bytes"
        )
    return num_prompt + 1
