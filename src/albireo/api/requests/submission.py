"""Submission: one request, ready for the engine.

Made by admission.py and pooling_admission.py; it goes to an engine in this process, or by engine_process to another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from albireo.image_input import ImageInput
from albireo.lora_request import LoRARequest
from albireo.params import PoolingParams, SamplingParams
from albireo.step import ThinkingBudget, TokenConstraint

#: Of a request whose prompt is pooled.
NO_SAMPLING = SamplingParams(temperature=0.0, seed=0, max_tokens=None, detokenize=False)


@dataclass(frozen=True, slots=True)
class Submission:
    """One request, ready for the engine.

    Fields:
        prompt: its text, None when token ids were given.
        constraint: params.structured_outputs, compiled; see Admission.constrained().
        pooling: the prompt's embedding or scores are wanted, and nothing else; params are NO_SAMPLING then.
        budget: makes what watches params.thinking_token_budget; see Admission.budgeted().
        adapter: the number of its adapter.
        lora_request: how its caller named that one.
        images: what its tokens are that stand for pictures.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    cache_salt: str | None = None
    constraint: TokenConstraint | None = None
    pooling: PoolingParams | None = None
    budget: Callable[[], ThinkingBudget] | None = None
    adapter: int | None = None
    images: tuple[ImageInput, ...] = ()
    lora_request: LoRARequest | None = None

    @property
    def is_of_tokens(self) -> bool:
        """Whether each token of the prompt is to have values of its own."""
        return self.pooling is not None and self.pooling.pooling_type == "all"
